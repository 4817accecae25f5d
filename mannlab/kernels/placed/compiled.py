"""The sums and their gradient, compiled by numba for CPUs."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

from numba import njit

jit: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


@jit
def _count(row):
    count = 0
    while count < len(row) and row[count] >= 0:
        count += 1
    return count


@jit
def forward(low, high, table, symbols, parts, placed, out):
    """Rows ``low`` to ``high`` of the sums ``out[T, D]``; ``parts`` count if ``placed``."""
    width = table.shape[1]
    for t in range(low, high):
        total, count = out[t], _count(symbols[t])
        total[:] = 0
        for j in range(count):
            vector = table[symbols[t, j]]
            if placed:
                share = out.dtype.type((j + 1) / count)
                level, slope = 1 - share, 1 - 2 * share
                for d in range(width):
                    total[d] += (level - slope * parts[d]) * vector[d]
            else:
                for d in range(width):
                    total[d] += vector[d]


@jit
def gradient(low, high, grads, symbols, parts, placed, out):
    """Columns ``low`` to ``high`` of the table's gradient ``out[V, D]``, which is added to."""
    own = parts[low:high]
    for t in range(len(symbols)):
        grad, count = grads[t, low:high], _count(symbols[t])
        for j in range(count):
            total = out[symbols[t, j], low:high]
            if placed:
                share = out.dtype.type((j + 1) / count)
                level, slope = 1 - share, 1 - 2 * share
                for d in range(len(total)):
                    total[d] += (level - slope * own[d]) * grad[d]
            else:
                for d in range(len(total)):
                    total[d] += grad[d]
