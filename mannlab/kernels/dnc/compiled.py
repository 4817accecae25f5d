"""A step of a Differentiable Neural Computer's memory for CPUs, compiled by numba; its backward pass by hand
is in ``compiled_backward.py``.

The equations are those of ``naive.py``. Arrays are whole histories, time first; see ``fused/rows.py``. Rows
of a memory lie as ``[W, N]``. ``at[14]`` says where each field of ``DNCInterface`` begins in what the
controller says, and where the last one ends; what is switched off has no width.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from mannlab.kernels.dnc.layout import LINK_FLOOR, MASK_FLOOR, USAGE_FLOOR
from mannlab.kernels.elementary import each_sigmoid, each_softplus, log
from mannlab.kernels.ntm.constants import NORM_EPSILON
from mannlab.kernels.vectors import accumulate, combine, copy, jit, products, soften

KEYS, STRENGTHS, WRITE_KEY, WRITE_STRENGTH, ERASE, ADD, FREE, ALLOCATION, WRITE = range(9)
MODES, MASKS, WRITE_MASK, SHARPNESS, END = range(9, 14)


@jit
def activate(said, at):
    """The interface's fields, in place."""
    one, floor = said.dtype.type(1), said.dtype.type(MASK_FLOOR)
    for low, high in (
        (at[STRENGTHS], at[WRITE_KEY]),
        (at[WRITE_STRENGTH], at[ERASE]),
        (at[SHARPNESS], at[END]),
    ):
        field = said[low:high]
        each_softplus(field)
        for n in range(len(field)):
            field[n] += one
    each_sigmoid(said[at[ERASE] : at[ADD]])
    each_sigmoid(said[at[FREE] : at[MODES]])
    for low in range(at[MODES], at[MASKS], 3):
        soften(said[low : low + 3])
    masks = said[at[MASKS] : at[SHARPNESS]]
    each_sigmoid(masks)
    for n in range(len(masks)):
        masks[n] = floor + (one - floor) * masks[n]


@jit
def squared_mask(said, low, high, h, out):
    """Squares of head ``h``'s mask, ``out[W]``; masks are the fields from ``low`` to ``high``, or ones."""
    width = len(out)
    for w in range(width):
        mask = said[low + h * width + w] if high > low else out.dtype.type(1)
        out[w] = mask * mask


@jit
def similarity(rows, squares, key, mask, factors, scale, cosines):
    """Cosines ``[N]`` of a masked key with masked ``rows[W, N]``, and the rows' inverse norms ``scale[N]``.

    ``squares[W, N]``: of the rows; ``mask[W]``: squared; ``factors[W]``: room.
    """
    epsilon, one = rows.dtype.type(NORM_EPSILON), rows.dtype.type(1)
    size = epsilon
    for w in range(len(key)):
        factors[w] = key[w] * mask[w]
        size += key[w] * factors[w]
    size = one / np.sqrt(size)
    for n in range(len(scale)):
        scale[n] = epsilon
        cosines[n] = epsilon - epsilon
    combine(scale, squares, mask)
    combine(cosines, rows, factors)
    for n in range(len(scale)):
        scale[n] = one / np.sqrt(scale[n])
        cosines[n] *= size * scale[n]


@jit
def square(rows, squares):
    for w in range(len(rows)):
        row, out = rows[w], squares[w]
        for n in range(len(row)):
            out[n] = row[n] * row[n]


@jit
def focus(cosines, strength, weights):
    for n in range(len(weights)):
        weights[n] = strength * cosines[n]
    soften(weights)


@jit
def allocate(usage, order, weights):
    """Allocation's ``weights[N]`` from ``usage[N]``; ``order[N]``: the free list."""
    number = usage.dtype.type
    floor, one = number(USAGE_FLOOR), number(1)
    floored = np.empty(len(usage), usage.dtype)
    for n in range(len(usage)):
        floored[n] = floor + (one - floor) * usage[n]
    left = one
    for n, row in enumerate(np.argsort(floored, kind="mergesort")):
        order[n] = row
        weights[row] = (one - floored[row]) * left
        left *= floored[row]


@jit
def relink(old, precedence, writing, new, previous, backward, forward):
    """The ``new[N, N]`` links, and where they lead from ``previous[R, N]``: ``backward``, ``forward``."""
    zero, one = new.dtype.type(0), new.dtype.type(1)
    found = np.empty(len(previous), new.dtype)
    backward[:] = zero
    for i in range(len(writing)):
        before, after, written = old[i], new[i], writing[i]
        for j in range(len(writing)):
            after[j] = (one - written - writing[j]) * before[j] + written * precedence[j]
        after[i] = zero
        products(after, previous, found)
        for h in range(len(previous)):
            forward[h, i] = found[h]
            accumulate(backward[h], after, previous[h, i])


@jit
def sharpen(weights, exponent, out):
    floor = weights.dtype.type(LINK_FLOOR)
    for n in range(len(weights)):
        out[n] = exponent * log(weights[n] + floor)
    soften(out)


@jit
def write(before, retained, writing, erase, add, after):
    """Erase, then add; ``retained[N]`` is what is kept of each row before that."""
    for w in range(len(before)):
        row, new, e, a = before[w], after[w], erase[w], add[w]
        for n in range(len(row)):
            kept = row[n] * retained[n]
            new[n] = kept + writing[n] * (a - kept * e)


@jit
def retain(fields, at, reading, retained):
    """What free gates leave of each row: ``retained[N]``."""
    one = retained.dtype.type(1)
    for n in range(len(retained)):
        retained[n] = one
    for h in range(len(reading)):
        free, read = fields[at[FREE] + h], reading[h]
        for n in range(len(retained)):
            retained[n] *= one - free * read[n]


@jit
def hold(t, j, k, b, memory, usage, reading, writing, precedence, links, reads):
    """Padding: the states as they were."""
    memory[k, b] = memory[j, b]
    reading[k, b] = reading[j, b]
    links[k, b] = links[j, b]
    copy(usage[j, b], usage[k, b])
    copy(writing[j, b], writing[k, b])
    copy(precedence[j, b], precedence[k, b])
    copy(reads[t, b], reads[t + 1, b])


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
    usage,
    reading,
    writing,
    precedence,
    links,
    similar,
    content,
    scales,
    allocated,
    order,
    followed,
    sharp,
    reads,
    at,
    deallocation,
):
    """Step ``t`` of the batch rows from ``low`` to ``high``.

    ``similar``, ``content`` and ``scales``, all ``[., B, R + 1, N]``: of the read heads, then of the
    write head. ``followed`` and ``sharp``, both ``[., B, 2, R, N]``: where links lead, backward and forward,
    before and after sharpening.
    """
    width, slots, heads = memory.shape[2], memory.shape[3], reading.shape[2]
    one = memory.dtype.type(1)
    linked, sharpens = at[MASKS] > at[MODES], at[END] > at[SHARPNESS]
    squares = np.empty((width, slots), memory.dtype)
    mask, factors = np.empty(width, memory.dtype), np.empty(width, memory.dtype)
    retained = np.empty(slots, memory.dtype)
    for b in range(low, high):
        if not valid[t, b]:
            hold(t, j, k, b, memory, usage, reading, writing, precedence, links, reads)
            continue
        before, after, fields, previous = memory[j, b], memory[k, b], said[i, b], reading[j, b]
        activate(fields, at)
        retain(fields, at, previous, retained)
        used, used_before, written, written_before = usage[k, b], usage[j, b], writing[k, b], writing[j, b]
        for n in range(slots):
            used[n] = used_before[n] + written_before[n] - used_before[n] * written_before[n]
            used[n] *= retained[n]
        allocate(used, order[i, b], allocated[i, b])
        square(before, squares)
        squared_mask(fields, at[WRITE_MASK], at[SHARPNESS], 0, mask)
        key = fields[at[WRITE_KEY] : at[WRITE_STRENGTH]]
        similarity(before, squares, key, mask, factors, scales[i, b, heads], similar[i, b, heads])
        found, free = content[i, b, heads], allocated[i, b]
        focus(similar[i, b, heads], fields[at[WRITE_STRENGTH]], found)
        gate, share = fields[at[WRITE]], fields[at[ALLOCATION]]
        for n in range(slots):
            written[n] = gate * (share * free[n] + (one - share) * found[n])
        if not deallocation:
            for n in range(slots):
                retained[n] = one
        write(before, retained, written, fields[at[ERASE] : at[ADD]], fields[at[ADD] : at[FREE]], after)
        if linked:
            back, ahead = followed[i, b, 0], followed[i, b, 1]
            relink(links[j, b], precedence[j, b], written, links[k, b], previous, back, ahead)
            total = one - one
            for n in range(slots):
                total += written[n]
            last, last_before = precedence[k, b], precedence[j, b]
            for n in range(slots):
                last[n] = (one - total) * last_before[n] + written[n]
        square(after, squares)
        for h in range(heads):
            squared_mask(fields, at[MASKS], at[WRITE_MASK], h, mask)
            key = fields[at[KEYS] + h * width : at[KEYS] + (h + 1) * width]
            similarity(after, squares, key, mask, factors, scales[i, b, h], similar[i, b, h])
            found, weights = content[i, b, h], reading[k, b, h]
            focus(similar[i, b, h], fields[at[STRENGTHS] + h], found)
            if linked:
                back, ahead = followed[i, b, 0, h], followed[i, b, 1, h]
                if sharpens:
                    exponents = fields[at[SHARPNESS] + 2 * h : at[SHARPNESS] + 2 * h + 2]
                    sharpen(back, exponents[0], sharp[i, b, 0, h])
                    sharpen(ahead, exponents[1], sharp[i, b, 1, h])
                    back, ahead = sharp[i, b, 0, h], sharp[i, b, 1, h]
                modes = fields[at[MODES] + 3 * h : at[MODES] + 3 * h + 3]
                for n in range(slots):
                    weights[n] = modes[0] * back[n] + modes[1] * found[n] + modes[2] * ahead[n]
            else:
                copy(found, weights)
            products(weights, after, reads[t + 1, b, h * width : (h + 1) * width])
