"""Loops over slots that the compiled steps of memories share.

Shapes: N slots, W word width, H any number of vectors. Rows of a memory lie as ``[W, N]``, slots last, so
that inner loops run over slots. Loops over several vectors take four at a time: what is summed is then
fetched and stored a fourth as often.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mannlab.kernels.elementary import exp

# Sums may be reordered, so that they use vector units; NaN and infinity keep their meaning.
options: Any = {"cache": True, "nogil": True, "error_model": "numpy"}
jit: Any = njit(fastmath={"reassoc", "contract", "arcp", "nsz"}, **options)
# For what is called in inner loops: to hand a slice to a function takes as long as a loop over it.
inlined: Any = njit(fastmath={"reassoc", "contract", "arcp", "nsz"}, inline="always", **options)


@jit
def copy(source, target):
    """What an assignment of slices does, without its checks."""
    for n in range(len(source)):
        target[n] = source[n]


# Of NaN the largest is any number; what is made of it is NaN all the same.
@njit(fastmath={"nnan", "nsz", "reassoc"}, **options)
def largest(values):
    top = values[0]
    for n in range(len(values)):
        top = max(top, values[n])
    return top


@inlined
def soften(values):
    """Softmax in place."""
    top = largest(values)
    total = top - top
    for n in range(len(values)):
        values[n] = exp(values[n] - top)
        total += values[n]
    scale = values.dtype.type(1) / total
    for n in range(len(values)):
        values[n] *= scale


@inlined
def accumulate(target, source, factor):
    for n in range(len(target)):
        target[n] += factor * source[n]


@inlined
def dot(one, other):
    total = one[0] * other[0]
    total -= total
    for n in range(len(one)):
        total += one[n] * other[n]
    return total


@inlined
def inverse_norm(vector, epsilon):
    """One by the root of the squared norm plus ``epsilon``."""
    total = epsilon
    for n in range(len(vector)):
        total += vector[n] * vector[n]
    return vector.dtype.type(1) / np.sqrt(total)


@jit
def combine(target, vectors, factors):
    """Add the sum of ``factors[H]`` times ``vectors[H, N]`` to ``target[N]``."""
    count = len(factors)
    for h in range(0, count - 3, 4):
        first, second, third, fourth = vectors[h], vectors[h + 1], vectors[h + 2], vectors[h + 3]
        f0, f1, f2, f3 = factors[h], factors[h + 1], factors[h + 2], factors[h + 3]
        for n in range(len(target)):
            target[n] += (f0 * first[n] + f1 * second[n]) + (f2 * third[n] + f3 * fourth[n])
    for h in range(count - count % 4, count):
        accumulate(target, vectors[h], factors[h])


@jit
def products(vector, vectors, out):
    """Dot products of ``vector[N]`` with each of ``vectors[H, N]``, into ``out[H]``."""
    count = len(out)
    for h in range(0, count - 3, 4):
        first, second, third, fourth = vectors[h], vectors[h + 1], vectors[h + 2], vectors[h + 3]
        p0 = vector[0] - vector[0]
        p1, p2, p3 = p0, p0, p0
        for n in range(len(vector)):
            p0 += vector[n] * first[n]
            p1 += vector[n] * second[n]
            p2 += vector[n] * third[n]
            p3 += vector[n] * fourth[n]
        out[h], out[h + 1], out[h + 2], out[h + 3] = p0, p1, p2, p3
    for h in range(count - count % 4, count):
        out[h] = dot(vector, vectors[h])


@jit
def compare(rows, keys, epsilon, scale, similar):
    """Inverse norms of ``rows[W, N]``, to ``scale[N]``; products with ``keys[H W]``, to ``similar[H, N]``."""
    width = len(rows)
    for n in range(len(scale)):
        scale[n] = epsilon
    similar[:] = epsilon - epsilon
    for w in range(0, width - 3, 4):
        first, second, third, fourth = rows[w], rows[w + 1], rows[w + 2], rows[w + 3]
        for n in range(len(scale)):
            scale[n] += (first[n] * first[n] + second[n] * second[n]) + (
                third[n] * third[n] + fourth[n] * fourth[n]
            )
        for h in range(len(similar)):
            key, sums = keys[h * width + w : h * width + w + 4], similar[h]
            p0, p1, p2, p3 = key[0], key[1], key[2], key[3]
            for n in range(len(scale)):
                sums[n] += (p0 * first[n] + p1 * second[n]) + (p2 * third[n] + p3 * fourth[n])
    for w in range(width - width % 4, width):
        row = rows[w]
        for n in range(len(scale)):
            scale[n] += row[n] * row[n]
        for h in range(len(similar)):
            accumulate(similar[h], row, keys[h * width + w])
    for n in range(len(scale)):
        scale[n] = scale.dtype.type(1) / np.sqrt(scale[n])
