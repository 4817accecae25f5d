"""Metrics against size."""

from __future__ import annotations

import io
import math

from matplotlib.backends.backend_agg import FigureCanvasAgg

from mannlab.plots.generalisation import draw_generalisation


def test_a_panel_for_each_metric_and_a_line_for_each_kind() -> None:
    figure = draw_generalisation(
        {
            "errors": {"length": [(20, 2.0), (10, 1.0)], "repeats": [(20, 4.0)]},
            "cost": {"length": [(10, 0.5), (20, math.nan), (30, 1.5)]},
        },
        trained=10,
        as_trained={"errors": 0.25},
    )
    errors, cost = figure.axes
    lines = {line.get_label(): line for line in errors.get_lines()}
    assert set(lines) == {"length", "repeats", "sizes as trained", "trained up to 10"}
    assert lines["length"].get_xydata().tolist() == [[10, 1], [20, 2]], "in order of size"
    assert lines["sizes as trained"].get_ydata()[0] == 0.25
    assert (errors.get_xlabel(), errors.get_ylabel()) == ("length or repeats", "errors")
    assert cost.get_lines()[0].get_xydata().tolist() == [[10, 0.5], [30, 1.5]], "without what is not finite"
    figure.savefig(io.BytesIO(), format="png")


def test_far_apart_sizes_are_drawn_on_a_logarithmic_axis() -> None:
    for last, scale in ((20, "linear"), (500, "log")):
        figure = draw_generalisation({"errors": {"items": [(2, 0.0), (last, 1.0)]}})
        assert figure.axes[0].get_xscale() == scale


def test_sizes_that_are_whole_numbers_have_whole_ticks() -> None:
    figure = draw_generalisation({"errors": {"length": [(2, 0.0), (3, 1.0)]}})
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


def test_a_label_does_not_sit_on_the_panel_beside_it() -> None:
    points = {"length": [(10, 900.0), (13, 1500.0)]}
    figure = draw_generalisation({"errors": points, "bits": points})
    FigureCanvasAgg(figure).draw()
    left, right = (axis.get_tightbbox() for axis in figure.axes)
    assert right.x0 - left.x1 > 0.2 * figure.dpi
