"""The picture of a memory's rows."""

from __future__ import annotations

import torch

from mannlab.plots.contents import MOST_ROWS, draw_contents


def test_each_row_is_a_line_and_white_is_zero() -> None:
    rows = torch.zeros(6, 3)
    rows[2, 1] = -4
    axis = draw_contents({"rows": rows}).axes[0]
    (image,) = axis.images
    assert image.get_array().tolist() == rows.tolist()
    assert image.get_clim() == (-4, 4)


def test_a_stretch_may_go_on_past_the_last_row() -> None:
    rows = torch.arange(6.0).unsqueeze(1)
    axis = draw_contents({"rows": rows}, 4, 8).axes[0]
    assert axis.images[0].get_array()[:, 0].tolist() == [4, 5, 0, 1]
    assert axis.get_title() == "rows: 4 of 6"
    assert axis.yaxis.get_major_formatter()(6, None) == "0"


def test_many_rows_are_cut_and_empty_ones_can_be_drawn() -> None:
    figure = draw_contents({"keys": torch.zeros(1000, 2), "values": torch.zeros(1000, 2)})
    assert figure.axes[0].images[0].get_array().shape == (MOST_ROWS, 2)
    figure.draw_without_rendering()
