"""A step with least recently used access for CPUs, compiled by numba, with its backward pass by hand.

The equations are those of ``naive.py``. Arrays are whole histories, time first; see ``fused/rows.py``. Rows
of a memory lie as ``[W, N]``. What the controller says is ``key[R W]``, ``gate[R]`` and, from ``at_add`` and
``at_strength`` on, ``add[R W]`` and ``strength[R]``. These are 0 where there is none: the key is written, or
strengths are 1.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from mannlab.kernels.elementary import (
    each_sigmoid,
    each_softplus,
    each_tanh,
    exp,
    through_sigmoid,
    through_tanh,
)
from mannlab.kernels.ntm.constants import NORM_EPSILON
from mannlab.kernels.vectors import combine, compare, copy, dot, inverse_norm, jit, products, soften


@jit
def least_used(usage, count, indicator):
    """``indicator[N]``: 1 for the ``count`` rows of least ``usage[N]``, else 0; of equals the lower row.

    Returns the row that is used least of all.
    """
    zero, one = indicator.dtype.type(0), indicator.dtype.type(1)
    first = 0
    for n in range(len(indicator)):
        indicator[n] = zero
    for turn in range(count):
        best = -1
        for n in range(len(usage)):
            if indicator[n] == zero and (best < 0 or usage[n] < usage[best]):
                best = n
        indicator[best] = one
        if turn == 0:
            first = best
    return first


@jit
def transposed(flat, out):
    """``flat[R W]`` into ``out[W, R]``."""
    width, heads = out.shape
    for h in range(heads):
        for w in range(width):
            out[w, h] = flat[h * width + w]


@jit
def forward(
    low,
    high,
    t,
    i,
    j,
    k,
    valid,
    said,
    memory,
    reading,
    writing,
    usage,
    similar,
    scales,
    reads,
    decay,
    at_add,
    at_strength,
):
    """Step ``t`` of the batch rows from ``low`` to ``high``.

    ``similar[., B, R, N]``: cosines of keys with the rows after the write; ``scales[., B, N]``: the rows'
    inverse norms.
    """
    width, slots, heads = memory.shape[2], memory.shape[3], reading.shape[2]
    number = memory.dtype.type
    zero, one, epsilon, kept_part = number(0), number(1), number(NORM_EPSILON), number(decay)
    at_gate = heads * width
    indicator = np.empty(slots, memory.dtype)
    words = np.empty((width, heads), memory.dtype)
    for b in range(low, high):
        before, after = memory[j, b], memory[k, b]
        used, fields = usage[k, b], said[i, b]
        if not valid[t, b]:
            after[:] = before
            reading[k, b] = reading[j, b]
            writing[k, b] = writing[j, b]
            copy(usage[j, b], used)
            copy(reads[t, b], reads[t + 1, b])
            continue
        each_tanh(fields[:at_gate])
        each_sigmoid(fields[at_gate : at_gate + heads])
        if at_add > 0:
            each_tanh(fields[at_add : at_add + at_gate])
        if at_strength > 0:
            each_softplus(fields[at_strength:])
            for n in range(at_strength, at_strength + heads):
                fields[n] += one
        first = least_used(usage[j, b], heads, indicator)
        copy(usage[j, b], used)
        for n in range(slots):
            used[n] *= kept_part
        for h in range(heads):
            gate, previous, written = fields[at_gate + h], reading[j, b, h], writing[k, b, h]
            for n in range(slots):
                written[n] = gate * previous[n] + (one - gate) * indicator[n]
        transposed(fields[at_add : at_add + at_gate], words)
        for w in range(width):
            new = after[w]
            copy(before[w], new)
            new[first] = zero
            combine(new, writing[k, b], words[w])
        compare(after, fields[:at_gate], epsilon, scales[i, b], similar[i, b])
        scale = scales[i, b]
        for h in range(heads):
            cosines, focus, written = similar[i, b, h], reading[k, b, h], writing[k, b, h]
            size = inverse_norm(fields[h * width : (h + 1) * width], epsilon)
            for n in range(slots):
                cosines[n] *= size * scale[n]
            strength = fields[at_strength + h] if at_strength > 0 else one
            for n in range(slots):
                focus[n] = strength * cosines[n]
            soften(focus)
            for n in range(slots):
                used[n] += focus[n] + written[n]
            products(focus, after, reads[t + 1, b, h * width : (h + 1) * width])


@jit
def backward(
    low,
    high,
    t,
    valid,
    said,
    memory,
    reading,
    writing,
    usage,
    similar,
    scales,
    on_memory,
    on_reading,
    on_reads,
    on_said,
    decay,
    at_add,
    at_strength,
):
    """Backward through step ``t``: ``on_memory[B, W, N]`` and ``on_reading[B, R, N]`` in place, from those of
    the states after the step to those before it. ``on_reads[B, R W]``: of the step's reads; for a padded step
    it stays, as the gradient of the reads before, else it becomes zero. ``on_said[B, I]`` is filled.
    """
    width, slots, heads = memory.shape[2], memory.shape[3], reading.shape[2]
    number = memory.dtype.type
    zero, one, epsilon = number(0), number(1), number(NORM_EPSILON)
    at_gate = heads * width
    indicator = np.empty(slots, memory.dtype)
    on_scale = np.empty(slots, memory.dtype)
    # Of a row's gradient, the parts that come from reads and from cosines: vectors, and factors for each w.
    parts = np.empty((2 * heads, slots), memory.dtype)
    factors = np.empty((width, 2 * heads), memory.dtype)
    on_words = np.empty(width, memory.dtype)
    for b in range(low, high):
        on_fields = on_said[b]
        if not valid[t, b]:
            on_fields[:] = zero
            continue
        fields, after, scale = said[t, b], memory[t + 1, b], scales[t, b]
        on_after, on_read, on_focuses = on_memory[b], on_reads[b], on_reading[b]
        for n in range(slots):
            on_scale[n] = zero
        for h in range(heads):
            focus, slope, cosines = reading[t + 1, b, h], parts[heads + h], similar[t, b, h]
            here, until = h * width, (h + 1) * width
            key = fields[here:until]
            copy(on_focuses[h], slope)
            combine(slope, after, on_read[here:until])
            mean = dot(focus, slope)
            on_size = zero
            for n in range(slots):
                slope[n] = focus[n] * (slope[n] - mean)
            if at_strength > 0:
                strength = fields[at_strength + h]
                # Through oneplus, of which this is what came out.
                on_fields[at_strength + h] = dot(slope, cosines) * (one - exp(one - strength))
                for n in range(slots):
                    slope[n] *= strength
            for n in range(slots):
                product = slope[n] * cosines[n]
                on_size += product
                on_scale[n] += product
            size = inverse_norm(key, epsilon)
            for n in range(slots):
                slope[n] *= size * scale[n]
            copy(focus, parts[h])
            products(slope, after, on_fields[here:until])
            for w in range(width):
                on_fields[here + w] -= key[w] * size * size * on_size
        for n in range(slots):
            on_scale[n] *= scale[n] * scale[n]
        transposed(on_read, factors[:, :heads])
        transposed(fields[:at_gate], factors[:, heads:])
        for w in range(width):
            row, on_row = after[w], on_after[w]
            for n in range(slots):
                on_row[n] -= row[n] * on_scale[n]
            combine(on_row, parts, factors[w])
        for n in range(len(on_read)):
            on_read[n] = zero
        # Writing; what was written may be the key, which then has its gradient already.
        first = least_used(usage[t, b], heads, indicator)
        for h in range(heads):
            here, until = at_add + h * width, at_add + (h + 1) * width
            previous, on_written = reading[t, b, h], on_focuses[h]
            gate, on_gate = fields[at_gate + h], zero
            for n in range(slots):
                on_written[n] = zero
            combine(on_written, on_after, fields[here:until])
            products(writing[t + 1, b, h], on_after, on_words)
            if at_add == 0:
                for w in range(width):
                    on_fields[here + w] += on_words[w]
            else:
                copy(on_words, on_fields[here:until])
            for n in range(slots):
                on_gate += on_written[n] * (previous[n] - indicator[n])
            for n in range(slots):
                on_written[n] *= gate
            on_fields[at_gate + h] = on_gate
        for w in range(width):
            on_after[w, first] = zero
        through_tanh(fields[:at_gate], on_fields[:at_gate])
        through_sigmoid(fields[at_gate : at_gate + heads], on_fields[at_gate : at_gate + heads])
        if at_add > 0:
            through_tanh(fields[at_add : at_add + at_gate], on_fields[at_add : at_add + at_gate])
