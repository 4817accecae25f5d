"""The best of n^2 sums of two scores, compiled by numba for CPUs."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

jit: Any = njit(cache=True, nogil=True, error_model="numpy")

# Scores that are passed over together if the best of them is not good enough: every so many-th of a row.
BLOCK = 16


@jit
def insert(scores, places, filled, score, place):
    """Put a score into a descending list of fixed length; returns how many it holds."""
    last = min(filled, len(scores) - 1)
    while last > 0 and scores[last - 1] < score:
        scores[last], places[last] = scores[last - 1], places[last - 1]
        last -= 1
    scores[last], places[last] = score, place
    return min(filled + 1, len(scores))


@jit
def best(all_scores, tops, scores, places, spare, nowhere):
    """The best scores and their places, descending; ``tops``, ``spare`` and ``nowhere`` are working space."""
    count, wanted, blocks = len(all_scores), len(scores), len(tops)
    least = -np.inf
    if blocks > wanted:
        # So many blocks hold something as good as the last of the best blocks: that much is sure.
        tops[:] = all_scores[:blocks]
        for begin in range(blocks, count, blocks):
            for b in range(min(blocks, count - begin)):
                score = all_scores[begin + b]
                tops[b] = score if score > tops[b] else tops[b]
        filled = 0
        for b in range(blocks):
            if filled < wanted or tops[b] > spare[wanted - 1]:
                filled = insert(spare, nowhere, filled, tops[b], b)
        least = spare[wanted - 1]
    filled = 0
    for b in range(blocks):
        if blocks > wanted and tops[b] < least:
            continue
        for i in range(b, count, blocks):
            score = all_scores[i]
            if score >= least and (filled < wanted or score > scores[wanted - 1]):
                filled = insert(scores, places, filled, score, i)
    # Scores that are not numbers compare with nothing.
    for i in range(filled, wanted):
        scores[i], places[i] = np.nan, 0


@jit
def select(low, high, first, second, rows_first, rows_second, out):
    """The best sums of a score of ``first[Q, n]`` and one of ``second[Q, n]``.

    Fills ``rows_first``, ``rows_second`` and ``out``, ``[Q, k]``: where the two came from, and the sum.
    """
    count, wanted = first.shape[1], out.shape[1]
    kind = first.dtype
    tops = np.empty((count + BLOCK - 1) // BLOCK, kind)
    spare, nowhere = np.empty(wanted, kind), np.empty(wanted, np.int64)
    scores_first, scores_second = np.empty(wanted, kind), np.empty(wanted, kind)
    places_first, places_second = np.empty(wanted, np.int64), np.empty(wanted, np.int64)
    pairs = np.empty(wanted, np.int64)
    for q in range(low, high):
        best(first[q], tops, scores_first, places_first, spare, nowhere)
        best(second[q], tops, scores_second, places_second, spare, nowhere)
        filled = 0
        for i in range(wanted):
            # Pair (i, j) comes after (i + 1) (j + 1) - 1 others that are at least as good.
            for j in range(wanted // (i + 1)):
                score = scores_first[i] + scores_second[j]
                if filled == wanted and not score > out[q, wanted - 1]:
                    break
                filled = insert(out[q], pairs, filled, score, i * wanted + j)
        for k in range(wanted):
            rows_first[q, k] = places_first[pairs[k] // wanted]
            rows_second[q, k] = places_second[pairs[k] % wanted]
