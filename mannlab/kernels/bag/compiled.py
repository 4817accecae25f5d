"""Work on rows of a large table, compiled by numba for CPUs.

Every function works on the part from ``low`` to ``high`` (of bags, or of distinct rows), so that threads can
share a call. Rows lie far apart: several are read at a time, to have more than one under way from memory.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

jit: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@jit
def forward(low, high, values, rows, weights, out):
    """``out[t] = sum_k weights[t, k] values[rows[t, k]]``."""
    count, width = rows.shape[1], values.shape[1]
    whole = count - count % 8
    for t in range(low, high):
        total = out[t]
        total[:] = 0
        for k in range(0, whole, 8):
            w, r = weights[t, k : k + 8], rows[t, k : k + 8]
            v0, v1, v2, v3 = values[r[0]], values[r[1]], values[r[2]], values[r[3]]
            v4, v5, v6, v7 = values[r[4]], values[r[5]], values[r[6]], values[r[7]]
            w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
            for d in range(width):
                one = w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]
                total[d] += one + (w4 * v4[d] + w5 * v5[d] + w6 * v6[d] + w7 * v7[d])
        for k in range(whole, count):
            v, w0 = values[rows[t, k]], weights[t, k]
            for d in range(width):
                total[d] += w0 * v[d]


@jit
def weight_gradient(low, high, values, rows, grads, out):
    """``out[t, k] = values[rows[t, k]] . grads[t]``."""
    count, width = rows.shape[1], values.shape[1]
    whole = count - count % 4
    for t in range(low, high):
        g, r = grads[t], rows[t]
        for k in range(0, whole, 4):
            v0, v1, v2, v3 = values[r[k]], values[r[k + 1]], values[r[k + 2]], values[r[k + 3]]
            s0 = s1 = s2 = s3 = g[0] * 0
            for d in range(width):
                s0 += g[d] * v0[d]
                s1 += g[d] * v1[d]
                s2 += g[d] * v2[d]
                s3 += g[d] * v3[d]
            out[t, k], out[t, k + 1], out[t, k + 2], out[t, k + 3] = s0, s1, s2, s3
        for k in range(whole, count):
            v0 = values[r[k]]
            s0 = g[0] * 0
            for d in range(width):
                s0 += g[d] * v0[d]
            out[t, k] = s0


@jit
def gradient_of(u, reverse, weights, sources, grads, out):
    """Put together what all entries of distinct row ``u`` say: ``out[D]``."""
    order, starts = reverse
    out[:] = 0
    for e in range(starts[u], starts[u + 1]):
        i = order[e]
        w, g = weights[i], grads[sources[i]]
        for d in range(len(out)):
            out[d] += w * g[d]


@jit
def gradients(low, high, reverse, weights, sources, grads, out):
    """The gradient of every distinct row, ``out[U, D]``."""
    for u in range(low, high):
        gradient_of(u, reverse, weights, sources, grads, out[u])


@jit
def squares(low, high, reverse, weights, sources, grads, out):
    """The sum of squares of each distinct row's gradient, ``out[U]``."""
    row = np.empty(grads.shape[1], grads.dtype)
    for u in range(low, high):
        gradient_of(u, reverse, weights, sources, grads, row)
        out[u] = np.sum(row * row)


@jit
def adam(
    low, high, ids, reverse, weights, sources, grads, values, first, second, last, step, settings, limits
):
    """A step of Adam on the distinct rows; see :class:`mannlab.kernels.bag.table.RowAdam`."""
    lr, beta1, beta2, eps = settings
    scale, clip = limits
    width, kind = values.shape[1], values.dtype.type
    row = np.empty(width, grads.dtype)
    rate = kind(lr / (1 - beta1**step))
    root = kind(1 / math.sqrt(1 - beta2**step))
    by1, by2, add, scale, clip = kind(1 - beta1), kind(1 - beta2), kind(eps), kind(scale), kind(clip)
    for u in range(low, high):
        gradient_of(u, reverse, weights, sources, grads, row)
        r = ids[u]
        missed = step - last[r]
        last[r] = step
        keep1, keep2 = kind(beta1**missed), kind(beta2**missed)
        v, m, s = values[r], first[r], second[r]
        for d in range(width):
            g = min(max(row[d] * scale, -clip), clip)
            m[d] = keep1 * m[d] + by1 * g
            s[d] = keep2 * s[d] + by2 * g * g
            v[d] -= rate * m[d] / (math.sqrt(s[d]) * root + add)
