"""Charts."""

from __future__ import annotations

import json
import math
from html import unescape
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mannlab.report.statistics import band, estimate
from mannlab.report.svg import Axis, Line, bar_chart, line_chart, linear_ticks, log_ticks, short, span
from mannlab.report.tables import spread

numbers = st.floats(-1e9, 1e9, allow_nan=False)


def parsed(text: str) -> ElementTree.Element:
    """A chart as a tree; it must be whole XML, and every place on it a number."""
    for word in ("nan", "inf"):
        assert word not in text.replace("infinity", ""), text
    return ElementTree.fromstring(text)


def line(label: str, *curves: tuple[list[float], list[float]], index: int = 0) -> Line:
    found = band(curves)
    assert found is not None
    return Line(label, index, found)


@given(st.lists(numbers, min_size=1, max_size=9))
def test_axes_hold_their_values(values: list[float]) -> None:
    low, high = span(values)
    assert low < high
    assert low <= min(values)
    assert high >= max(values)
    if min(values) >= 0:
        assert low >= 0
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick in ticks)


@given(st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=9))
def test_logarithmic_axes_hold_their_values(values: list[float]) -> None:
    low, high = span(values, log=True)
    assert 0 < low < min(values)
    assert max(values) < high
    assert len(log_ticks(low, high)) <= 6
    axis = Axis(low, high, 0.0, 100.0, log=True)
    assert axis(low) == pytest.approx(0.0)
    assert axis(high) == pytest.approx(100.0)
    assert axis(0.0) == pytest.approx(0.0)
    assert axis(math.sqrt(low * high)) == pytest.approx(50.0)


def test_logarithmic_axes_end_somewhere() -> None:
    assert 1e-13 < span([1e-300, 1.0], log=True)[0] < 1e-11
    assert span([0.0, -1.0], log=True) == (1.0, 10.0)
    assert span([5e-324]) == (0.0, 1.0)


def test_round_ticks() -> None:
    assert linear_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(0, 1200) == [0, 200, 400, 600, 800, 1000, 1200]
    assert log_ticks(0.5, 2000) == [1, 10, 100, 1000]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (20_000, "20k"), (1.5e6, "1.5M"), (0.05, "0.05"), (1e-6, "1e-6"), (-2500, "-2.5k")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 10**6), numbers), min_size=1, max_size=9, unique_by=lambda p: p[0]),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_any_curves_can_be_drawn(drawn: list[list[tuple[int, float]]], log: bool) -> None:
    curves = [tuple(map(list, zip(*sorted(curve), strict=True))) for curve in drawn]
    parsed(line_chart([line("a", *curves)], "name", "sequences", log_y=log))


def test_a_line_is_dashed_where_runs_have_ended() -> None:
    chart = parsed(line_chart([line("a", ([0, 1, 2], [3, 2, 1]), ([0, 1], [3, 2]))], "n", "x"))
    lines = [node for node in chart.iter("path") if node.get("class") == "line"]
    assert [node.get("stroke-dasharray") for node in lines] == [None, "3 3"]
    # The dashed stretch begins where the whole one ends.
    first, second = (str(node.get("d")) for node in lines)
    assert first.rpartition("L")[2] == second.removeprefix("M").partition("L")[0]


def test_bands_only_of_several_runs_and_where_wanted() -> None:
    several, one = line("a", ([0, 1], [1, 2]), ([0, 1], [2, 4])), line("b", ([0, 1], [1, 2]))

    def bands(given_line: Line, wanted: bool = True) -> int:
        chart = parsed(line_chart([given_line], "n", "x", bands=wanted))
        return sum(node.get("class") == "band" for node in chart.iter("path"))

    assert [bands(several), bands(one), bands(several, False)] == [1, 0, 0]


def test_what_hovering_shows() -> None:
    chart = line_chart([line('<"&', ([0, 100], [1, 2]), ([0, 100], [3, 5]), index=9)], "n", "sequences")
    plot = json.loads(unescape(chart.partition('data-plot="')[2].partition('"')[0]))
    assert plot["unit"] == "sequences"
    assert plot["lines"] == [{"n": '<"&', "c": 1, "x": [0, 100], "v": [[2, 1, 3, 2], [3.5, 2, 5, 2]]}]


def test_sizes_are_marked_and_wide_spans_are_logarithmic() -> None:
    near, far = [10, 20, 30], [10, 100, 1000]
    for sizes, log in ((near, False), (far, True)):
        text = line_chart(
            [line("a", (sizes, [1, 2, 3]))], "n", "length", sizes=sizes, mark=(20.0, "trained <20>")
        )
        chart = parsed(text)
        assert f"{str(log).lower()}]" in unescape(text.partition('data-plot="')[2])
        assert sum(node.get("class") == "dot" for node in chart.iter("path")) == 3
        assert "trained <20>" in [node.text for node in chart.iter("text")]


def bars(*values: list[float], labels: tuple[str, ...] = ("a", "b", "c")) -> ElementTree.Element:
    found = [(labels[index], index, estimate(each)) for index, each in enumerate(values)]
    return parsed(bar_chart([(a, b, c) for a, b, c in found if c is not None], "n", spread))


def test_bars_are_as_long_as_their_means() -> None:
    chart = bars([2.0, 4.0], [6.0])
    widths = [float(node.get("width", 0)) for node in chart.iter("rect") if node.get("class") == "bar"]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.11)
    assert sum(node.get("class") == "run" for node in chart.iter("circle")) == 2
    assert sum(node.get("class") == "whisker" for node in chart.iter("path")) == 3


def test_intervals_that_are_too_wide_are_cut_off_with_an_arrow() -> None:
    def arrows(*values: list[float]) -> int:
        paths = [str(node.get("d")) for node in bars(*values).iter("path") if node.get("class") == "whisker"]
        return sum("l" in path for path in paths)

    assert arrows([10.0, 10.1, 9.9]) == 0
    assert arrows([1.0, 30.0]) == 2


@given(st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_bars_stay_inside(values: list[list[float]]) -> None:
    for node in bars(*values).iter():
        for key in ("x", "cx"):
            if node.get(key) is not None:
                assert -0.11 <= float(node.get(key, 0)) <= 380.11
        if node.get("class") == "bar":
            assert float(node.get("x", 0)) + float(node.get("width", 0)) <= 381.2


def test_long_and_strange_names() -> None:
    label = "lstm, dense, slots=128, width=20, lr=0.003, <script>alert(1)</script>"
    chart = bars([1.0], labels=(label,))
    names = [str(node.text) for node in chart.iter("text") if node.get("class") == "name"]
    assert " ".join(names) == label
    assert max(map(len, names)) <= 50
    assert next(iter(chart.iter("g"))).get("data-tip") == f"{label}: 1, 1 run"


def test_groups_beyond_the_colours_are_dashed() -> None:
    chart = line_chart([line("a", ([0, 1], [1, 2]), index=9)], "n", "x")
    assert 'class="c1"' in chart
    assert "stroke-dasharray" in chart
