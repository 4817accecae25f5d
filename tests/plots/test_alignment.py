"""Alignment: reads are traced to the steps that wrote what they read."""

from __future__ import annotations

import io

import torch

from mannlab.plots.alignment import align, draw_alignment, recall


def test_reads_lead_back_to_writes() -> None:
    writing = torch.eye(6)[[0, 1, 2, 3, 4, 5]].unsqueeze(1)  # step t writes slot t
    reading = torch.zeros(6, 1, 6)
    reading[3, 0, 2] = reading[4, 0, 0] = 1  # the target reads the source backwards
    reading[5, 0, 1] = reading[5, 0, 4] = 0.5  # and what was written later
    found = align(reading, writing, source=3)
    assert torch.allclose(found, torch.tensor([[0, 0, 1.0], [1, 0, 0], [0, 0.5, 0]]))


def test_a_head_that_stays_where_it_is_does_not_count() -> None:
    moves = torch.eye(6).unsqueeze(1)
    stays = torch.zeros(6, 1, 6)
    stays[:, 0, 0] = 1
    writing = torch.cat([moves, stays], 1)
    reading = torch.zeros(6, 1, 6)
    reading[3, 0, 2] = reading[4, 0, 0] = reading[5, 0, 1] = 1
    assert torch.equal(align(reading, writing, 3), align(reading, moves, 3))
    assert torch.isfinite(align(stays, stays, 3)).all()


def test_nothing_comes_from_the_future_or_from_nothing() -> None:
    found = align(torch.ones(5, 2, 4), torch.rand(5, 2, 4), source=2)
    assert (found.sum(1) <= 1 + 1e-6).all()
    assert torch.equal(align(torch.zeros(5, 1, 4), torch.ones(5, 1, 4), 2), torch.zeros(3, 2))


def test_it_is_drawn_with_any_tokens() -> None:
    figure = draw_alignment(torch.rand(2, 3), ["a$", "\ufffd", "␣c"], ["d", "■"])
    figure.canvas.draw()
    assert len(figure.axes) == 1


def test_each_head_of_a_step_is_traced_to_earlier_ones() -> None:
    writing = torch.eye(4).unsqueeze(1)
    reading = torch.zeros(4, 2, 4)
    reading[2, 0, 1], reading[2, 1, 3] = 1, 1  # the second head reads what is written later
    assert torch.equal(recall(reading, writing, 2), torch.tensor([[0.0, 0], [1, 0]]))


def test_a_title_may_hold_anything() -> None:
    figure = draw_alignment(torch.zeros(1, 1), ["a"], ["b"], "What costs $5?")
    figure.canvas.draw()
    assert "5" in figure.axes[0].get_title(loc="right")


def test_long_labels_have_room() -> None:
    figure = draw_alignment(torch.rand(2, 3), ["1", "2", "3"], ["daniel went back to the bedroom"] * 2)
    figure.savefig(io.BytesIO(), format="png")
    edges = [label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels()]
    assert min(edges) >= 0
