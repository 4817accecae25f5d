"""Which label was answered for which."""

from __future__ import annotations

import io

import pytest
import torch

from mannlab.plots.confusion import draw_confusion


def test_rows_are_shares_of_what_is_true() -> None:
    table = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 2]])
    figure = draw_confusion({"instance 1": table, "instance 2": table.T}, ["1", "2", "3"])
    first, second, bar = figure.axes
    shown = first.images[0].get_array()
    assert shown.tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 1]]
    assert first.get_title() == "instance 1: 83 % of 6 right"
    assert (first.get_ylabel(), first.get_xlabel()) == ("true label", "label answered")
    assert [text.get_text() for text in first.texts][:3] == ["75", "25", "0"]
    assert bar.get_ylabel() == "share of the true label"
    assert second.images[0].get_array()[0, 0] == 1


@pytest.mark.parametrize("size", [2, 20, 150])
def test_any_number_of_labels(size: int) -> None:
    figure = draw_confusion({"all": torch.eye(size).long()}, [str(n) for n in range(size)], "letter")
    assert len(figure.axes[0].get_xticks()) == (size if size < 150 else 3)
    figure.savefig(io.BytesIO(), format="png")


def test_nothing_asked_is_an_empty_picture() -> None:
    draw_confusion({}, ["a"]).savefig(io.BytesIO(), format="png")
