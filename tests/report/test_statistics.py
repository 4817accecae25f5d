"""Means, intervals and bands, against values known otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mannlab.report.statistics import band, estimate, quantile, share

# The two-sided 95 % column of the table that every textbook has.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 120: 1.980}
numbers = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize(("freedom", "value"), TABLE.items())
def test_quantiles_are_those_of_the_table(freedom: int, value: float) -> None:
    assert quantile(freedom) == pytest.approx(value, abs=6e-4)


def test_quantiles_of_simple_distributions() -> None:
    # One degree of freedom is Cauchy's distribution; two have a closed form; many are nearly normal.
    assert quantile(1, 0.5) == pytest.approx(1.0)
    assert quantile(1, 0.99) == pytest.approx(63.657, abs=1e-3)
    assert quantile(2, 0.8) == pytest.approx(0.8 * math.sqrt(2 / (1 - 0.64)))
    assert quantile(100_000) == pytest.approx(1.95996, abs=1e-4)


@given(st.integers(1, 60), st.floats(0.01, 50))
def test_shares_agree_with_the_integral_of_the_density(freedom: int, t: float) -> None:
    x = np.linspace(0, t, 4001)
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(log - (freedom + 1) / 2 * np.log1p(x**2 / freedom))
    assert share(t, freedom) == pytest.approx(2 * np.trapezoid(density, x), abs=2e-5)


def test_an_estimate_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 * 1.0 / math.sqrt(3), abs=1e-3)
    assert (found.low, found.high) == (2.0 - found.half, 2.0 + found.half)


def test_one_run_has_no_interval_and_none_has_no_mean() -> None:
    found = estimate([5.0])
    assert found is not None
    assert (found.mean, found.half, found.low, found.high) == (5.0, None, None, None)
    assert estimate([]) is None
    assert estimate([math.nan, math.inf]) is None
    assert estimate([math.nan, 2.0]) == estimate([2.0])


@given(st.lists(numbers, min_size=2, max_size=12), numbers, st.floats(0.01, 100))
def test_intervals_move_and_stretch_with_the_values(values: list[float], add: float, by: float) -> None:
    found, moved = estimate(values), estimate([by * value + add for value in values])
    assert found is not None
    assert moved is not None
    assert found.half is not None
    size = by * max(map(abs, values)) + abs(add) + 1
    assert moved.mean == pytest.approx(by * found.mean + add, abs=1e-9 * size)
    assert moved.half == pytest.approx(by * found.half, abs=1e-6 * size)
    assert min(values) - 1e-6 <= found.mean <= max(values) + 1e-6


def test_a_band_is_the_mean_and_the_range_of_the_curves_that_are_there() -> None:
    found = band([([0, 10], [0, 10]), ([0, 5, 10, 20], [2, 2, 2, 4])])
    assert found is not None
    assert found.x.tolist() == [0, 5, 10, 20]
    assert found.mean.tolist() == [1, 3.5, 6, 4]
    assert found.low.tolist() == [0, 2, 2, 4]
    assert found.high.tolist() == [2, 5, 10, 4]
    assert found.count.tolist() == [2, 2, 2, 1]


def test_values_that_are_not_finite_are_left_out() -> None:
    found = band([([1, 2, 3], [1, math.nan, 3]), ([], [])])
    assert found is not None
    assert found.x.tolist() == [1, 3]
    assert band([]) is None
    assert band([([1], [math.inf])]) is None


curves = st.lists(
    st.lists(st.tuples(st.integers(0, 10_000), numbers), min_size=1, max_size=300, unique_by=lambda p: p[0]),
    min_size=1,
    max_size=4,
)


@given(curves, st.integers(2, 50))
def test_bands_are_short_and_enclose_their_mean(drawn: list[list[tuple[int, float]]], points: int) -> None:
    given_curves = [tuple(zip(*sorted(curve), strict=True)) for curve in drawn]
    found = band(given_curves, points)
    assert found is not None
    assert len(found.x) <= points + 2 * len(drawn)
    assert np.all(np.diff(found.x) > 0)
    assert {curve[0][0] for curve in given_curves} <= set(found.x)
    assert {curve[0][-1] for curve in given_curves} <= set(found.x)
    assert found.count.min() >= 1
    assert found.count.max() <= len(drawn)
    assert np.all(found.low <= found.mean + 1e-6)
    assert np.all(found.mean <= found.high + 1e-6)
