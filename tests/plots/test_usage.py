"""The map of values read."""

from __future__ import annotations

import io

import pytest
import torch

from mannlab.plots import usage
from mannlab.plots.usage import draw_usage


def test_it_shows_the_square_and_the_share() -> None:
    reads = torch.zeros(16)
    reads[[1, 6]] = torch.tensor([3.0, 5.0])
    figure = draw_usage(reads)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (4, 4)
    assert shown[0, 1] == 3
    assert shown[1, 2] == 5
    assert "12.5 % of 16" in figure.axes[0].get_title()
    figure.savefig(io.BytesIO(), format="png")


def test_nothing_read_can_be_drawn() -> None:
    draw_usage(torch.zeros(9)).savefig(io.BytesIO(), format="png")


def test_a_large_map_is_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "LARGEST", 3)
    figure = draw_usage(torch.ones(64))
    assert figure.axes[0].images[0].get_array().shape == (3, 3)
