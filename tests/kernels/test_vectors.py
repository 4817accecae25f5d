"""Loops over slots against numpy, at sizes around the four that they take at a time."""

from __future__ import annotations

import numpy as np
import pytest

from mannlab.kernels import vectors

SLOTS = (1, 5, 16)
COUNTS = (1, 3, 4, 7, 8)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("count", COUNTS)
def test_sums_and_products(slots, count):
    many, factors, one = draw(count, slots), draw(count), draw(slots)
    target = one.copy()
    vectors.combine(target, many, factors)
    np.testing.assert_allclose(target, one + factors @ many)
    out = np.full(count, np.nan)
    vectors.products(one, many, out)
    np.testing.assert_allclose(out, many @ one)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("width", COUNTS)
def test_compare(slots, width):
    rows, keys = draw(width, slots), draw(3, width)
    scale, similar = np.full(slots, np.nan), np.full((3, slots), np.nan)
    vectors.compare(rows, keys.reshape(-1), 0.1, scale, similar)
    np.testing.assert_allclose(scale, 1 / np.sqrt((rows**2).sum(0) + 0.1))
    np.testing.assert_allclose(similar, keys @ rows)


def test_softmax_of_large_numbers_and_of_nan():
    values = np.array([1e4, 1e4, -1e4])
    vectors.soften(values)
    np.testing.assert_allclose(values, [0.5, 0.5, 0])
    spoilt = np.array([1.0, np.nan, 2.0], np.float32)
    vectors.soften(spoilt)
    assert np.isnan(spoilt).all()


def test_small_ones():
    one, other = draw(7), draw(2, 7)[1]
    np.testing.assert_allclose(vectors.dot(one, other), one @ other)
    np.testing.assert_allclose(vectors.inverse_norm(one, 0.5), 1 / np.sqrt(one @ one + 0.5))
    target = np.empty(7)
    vectors.copy(one, target)
    np.testing.assert_array_equal(target, one)
