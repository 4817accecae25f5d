from __future__ import annotations

import io

import pytest
import torch

from mannlab.plots.stream import draw_stream, touched


def test_every_row_and_every_head_has_a_panel_on_a_fixed_scale() -> None:
    rows = {"input": torch.rand(7, 3), "output": torch.full((7, 3), torch.nan)}
    weights = {"read weights": torch.rand(7, 2, 10), "write weights": torch.rand(7, 1, 10)}
    figure = draw_stream(rows, weights)
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "input",
        "output",
        "read\nweights 1",
        "read\nweights 2",
        "write\nweights",
    ]
    for axis in figure.axes:
        (image,) = axis.images
        assert image.get_clim() == (0, 1)
        assert image.cmap.name == "gray_r"
    shown = figure.axes[2].images[0].get_array()
    assert torch.allclose(torch.as_tensor(shown.data), weights["read weights"][:, 0].T)


def test_segments_are_parted_by_lines() -> None:
    rows, weights = {"input": torch.rand(7, 3)}, {"read weights": torch.rand(7, 1, 10)}
    for axis in draw_stream(rows, weights, segment=3).axes:
        assert [line.get_xdata()[0] for line in axis.lines] == [2.5, 5.5]
    assert not draw_stream(rows, weights).axes[0].lines


def test_one_step_and_one_row_can_be_drawn() -> None:
    figure = draw_stream({"input": torch.ones(1, 1)}, {})
    figure.savefig(io.BytesIO(), format="png")
    draw_stream({}, {"read weights": torch.ones(1, 1, 4)}).savefig(io.BytesIO(), format="png")


def test_many_slots_are_cut_to_those_touched() -> None:
    weights = torch.zeros(5, 1, 128)
    weights[:, 0, 60:64] = 0.25
    first, last = touched({"w": weights})
    assert first <= 60
    assert last >= 64
    assert 16 <= last - first < 40
    assert touched({"w": weights[..., :40]}) == (0, 40)
    assert touched({"w": torch.zeros(5, 1, 128)})[0] == 0
    assert touched({}) == (0, 0)


def test_a_stretch_may_go_on_past_the_last_slot() -> None:
    """Heads move in a circle: slots 120 to 127 and 0 to 9 are neighbours."""
    weights = torch.zeros(5, 1, 128)
    weights[:, 0, 120:] = weights[:, 0, :10] = 0.25
    first, last = touched({"w": weights})
    assert last - first < 24
    assert set(range(120, 138)) <= set(range(first, last))
    axis = draw_stream({}, {"w": weights}).axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [str(first), "0", str((last - 1) % 128)], "the numbers are not upside down"


@pytest.mark.parametrize(("slots", "said"), [(128, "{} of 128 slots"), (20, "slot")])
def test_slots_are_named_and_a_stretch_of_them_is_said_to_be_one(slots: int, said: str) -> None:
    weights = torch.zeros(5, 1, slots)
    weights[:, 0, 6:10] = 0.5
    first, last = touched({"w": weights})
    row, axis = draw_stream({"input": torch.rand(5, 2)}, {"w": weights}).axes
    assert [text.get_text() for text in axis.texts] == [said.format(last - first)]
    assert not row.texts


def test_a_head_that_looks_everywhere_has_a_scale_of_its_own() -> None:
    weights = torch.full((5, 2, 40), 0.02)
    weights[2, 1, 3] = 0.9
    faint, sharp = draw_stream({}, {"read weights": weights}).axes
    assert faint.get_ylabel() == "read\nweights 1\ndarkest: 0.02"
    assert faint.images[0].get_clim()[1] == torch.tensor(0.02).item()
    assert sharp.get_ylabel() == "read\nweights 2"
    assert sharp.images[0].get_clim() == (0, 1)


def test_nothing_read_at_all_is_white() -> None:
    (axis,) = draw_stream({}, {"w": torch.zeros(5, 1, 4)}).axes
    assert axis.images[0].get_clim() == (0, 1)
