"""Means over seeds with their confidence intervals, and curves over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
Curve = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """What the runs of a group say of one metric.

    Attributes:
        values: the metric of each run.
        mean: their mean.
        half: half the width of the 95 % confidence interval of the mean; None of a single run, which says
            nothing about the spread.
    """

    values: tuple[float, ...]
    mean: float
    half: float | None

    @property
    def low(self) -> float | None:
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        return None if self.half is None else self.mean + self.half

    def overlaps(self, other: Estimate) -> bool:
        """Whether the intervals of both have anything in common; without one, nobody knows of any spread."""
        if self.half is None or other.half is None:
            return False
        return abs(self.mean - other.mean) <= self.half + other.half


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of independent runs and its interval by Student's t; None if there is no finite value.

    The interval supposes that the metric is about normal over seeds.
    """
    finite = tuple(float(value) for value in values if math.isfinite(value))
    count = len(finite)
    if not count:
        return None
    mean = math.fsum(finite) / count
    if count == 1:
        return Estimate(finite, mean, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (count - 1))
    return Estimate(finite, mean, quantile(count - 1) * deviation / math.sqrt(count))


@cache
def quantile(freedom: int, inside: float = CONFIDENCE) -> float:
    """The t for which Student's distribution has the share ``inside`` within [-t, t].

    Args:
        freedom: degrees of freedom, at least 1.
        inside: in (0, 1).
    """
    low, high = 0.0, 1.0
    while share(high, freedom) < inside:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if share(middle, freedom) < inside else (low, middle)
    return (low + high) / 2


def share(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's t distribution (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for index in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (index - 1) / index
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


@dataclass(frozen=True)
class Band:
    """Curves of several runs as one: at each ``x``, of the ``count`` runs that have been there, the mean and
    the lowest and highest value."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def band(curves: Sequence[Curve], points: int = 120) -> Band | None:
    """One curve of many, interpolated linearly between their points and never beyond their ends.

    Args:
        curves: x (rising) and y of each run; values that are not finite are left out.
        points: at most about this many are kept; the ends of every curve among them.
    """
    clean = []
    for x, y in curves:
        pairs = np.array([x, y], dtype=float)
        pairs = pairs[:, np.isfinite(pairs).all(0)]
        if pairs.shape[1]:
            clean.append(pairs)
    if not clean:
        return None
    grid = _thinned(np.unique(np.concatenate([pairs[0] for pairs in clean])), points)
    grid = np.unique(np.concatenate([grid, *([pairs[0, 0], pairs[0, -1]] for pairs in clean)]))
    rows = np.array([np.interp(grid, pairs[0], pairs[1], left=np.nan, right=np.nan) for pairs in clean])
    there = np.isfinite(rows)
    count = there.sum(0)
    kept = count > 0
    grid, rows, there, count = grid[kept], rows[:, kept], there[:, kept], count[kept]
    mean = np.where(there, rows, 0).sum(0) / count
    low, high = np.where(there, rows, np.inf).min(0), np.where(there, rows, -np.inf).max(0)
    return Band(grid, mean, low, high, count)


def _thinned(grid: np.ndarray, points: int) -> np.ndarray:
    if len(grid) <= points:
        return grid
    return grid[np.unique(np.linspace(0, len(grid) - 1, points).round().astype(int))]
