"""Back through a step of a Differentiable Neural Computer's memory; see ``compiled.py``.

Gradients are of the loss with respect to what the name after ``on_`` says.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from mannlab.kernels.dnc.compiled import (
    ADD,
    ALLOCATION,
    END,
    ERASE,
    FREE,
    KEYS,
    MASKS,
    MODES,
    SHARPNESS,
    STRENGTHS,
    WRITE,
    WRITE_KEY,
    WRITE_MASK,
    WRITE_STRENGTH,
    retain,
    square,
    squared_mask,
)
from mannlab.kernels.dnc.layout import LINK_FLOOR, MASK_FLOOR, USAGE_FLOOR
from mannlab.kernels.elementary import exp, log, through_sigmoid
from mannlab.kernels.ntm.constants import NORM_EPSILON
from mannlab.kernels.vectors import accumulate, combine, copy, dot, jit, products


@jit
def inactivate(said, on, at):
    """Gradient of the fields to that of what they were made from, in place."""
    one, floor = said.dtype.type(1), said.dtype.type(MASK_FLOOR)
    for low, high in (
        (at[STRENGTHS], at[WRITE_KEY]),
        (at[WRITE_STRENGTH], at[ERASE]),
        (at[SHARPNESS], at[END]),
    ):
        for n in range(low, high):
            on[n] *= one - exp(one - said[n])
    through_sigmoid(said[at[ERASE] : at[ADD]], on[at[ERASE] : at[ADD]])
    through_sigmoid(said[at[FREE] : at[MODES]], on[at[FREE] : at[MODES]])
    for low in range(at[MODES], at[MASKS], 3):
        through_softmax(said[low : low + 3], on[low : low + 3])
    for n in range(at[MASKS], at[SHARPNESS]):
        on[n] *= (said[n] - floor) * (one - said[n]) / (one - floor)


@jit
def through_softmax(weights, on):
    """Gradient of what ``weights`` are the softmax of, from that of the weights, in place."""
    mean = dot(weights, on)
    for n in range(len(weights)):
        on[n] = weights[n] * (on[n] - mean)


@jit
def through_focus(weights, cosines, strength, on):
    """From the gradient of weights to that of cosines, in place; returns that of the strength."""
    through_softmax(weights, on)
    on_strength = dot(on, cosines)
    for n in range(len(on)):
        on[n] *= strength
    return on_strength


@jit
def through_similarity(rows, squares, key, mask, scale, cosines, slope, on_rows, on_key, on_mask, masked):
    """``slope[N]``: gradient of the cosines, consumed. That of the rows is added to ``on_rows[W, N]``.

    Those of the key and of the mask fill ``on_key[W]`` and ``on_mask[W]``; ``mask[W]`` is squared, and the
    gradient is that of its root.
    """
    number = rows.dtype.type
    one, half, width = number(1), number(0.5), len(key)
    size = number(NORM_EPSILON)
    for w in range(width):
        size += key[w] * key[w] * mask[w]
    size = one / np.sqrt(size)
    on_norms = np.empty(len(slope), rows.dtype)
    on_squares = np.empty(width, rows.dtype)
    on_size = dot(slope, cosines) * size * size
    for n in range(len(slope)):
        on_norms[n] = slope[n] * cosines[n] * scale[n] * scale[n]
        slope[n] *= size * scale[n]
    products(slope, rows, on_key)
    if masked:
        products(on_norms, squares, on_squares)
    for w in range(width):
        row, on_row, weight, along = rows[w], on_rows[w], mask[w], mask[w] * key[w]
        for n in range(len(slope)):
            on_row[n] += along * slope[n] - weight * on_norms[n] * row[n]
        if masked:
            on_square = key[w] * on_key[w] - half * (on_size * key[w] * key[w] + on_squares[w])
            on_mask[w] = number(2) * np.sqrt(weight) * on_square
        on_key[w] = weight * (on_key[w] - on_size * key[w])


@jit
def through_sharpen(weights, exponent, sharp, on):
    """From the gradient of the sharpened weights to that of the weights, in place; returns the exponent's."""
    floor = weights.dtype.type(LINK_FLOOR)
    through_softmax(sharp, on)
    on_exponent = floor - floor
    for n in range(len(on)):
        on_exponent += on[n] * log(weights[n] + floor)
    for n in range(len(on)):
        on[n] *= exponent / (weights[n] + floor)
    return on_exponent


@jit
def through_relink(
    old,
    new,
    precedence,
    writing,
    previous,
    on_backward,
    on_forward,
    on_links,
    on_previous,
    on_writing,
    on_last,
):
    """``on_links`` and ``on_last`` (of the precedence): in place, from those after to those before;
    ``on_previous[R, N]`` and ``on_writing[N]`` are added to."""
    heads, slots = previous.shape
    zero, one = new.dtype.type(0), new.dtype.type(1)
    total, on_total = zero, dot(precedence, on_last)
    for n in range(slots):
        total += writing[n]
        on_writing[n] += on_last[n] - on_total
    for n in range(slots):
        on_last[n] *= one - total
    found, ahead, here = np.empty(heads, new.dtype), np.empty(heads, new.dtype), np.empty(heads, new.dtype)
    for i in range(slots):
        before, after, on_row, written = old[i], new[i], on_links[i], writing[i]
        for h in range(heads):
            ahead[h], here[h] = on_forward[h, i], previous[h, i]
        products(after, on_backward, found)
        for h in range(heads):
            accumulate(on_previous[h], after, ahead[h])
            on_previous[h, i] += found[h]
        combine(on_row, previous, ahead)
        combine(on_row, on_backward, here)
        on_row[i] = zero
        on_written = zero
        for j in range(slots):
            on_written += on_row[j] * (precedence[j] - before[j])
        for j in range(slots):
            on_writing[j] -= on_row[j] * before[j]
        accumulate(on_last, on_row, written)
        for j in range(slots):
            on_row[j] *= one - written - writing[j]
        on_writing[i] += on_written


@jit
def through_write(before, retained, writing, erase, add, on_rows, on_retained, on_writing, on_erase, on_add):
    """``on_rows``: in place, from those after to those before; ``on_erase`` and ``on_add`` are filled, the
    others are added to."""
    zero, one = before.dtype.type(0), before.dtype.type(1)
    for w in range(len(before)):
        row, on_row, e, a = before[w], on_rows[w], erase[w], add[w]
        to_erase = zero
        for n in range(len(row)):
            product = on_row[n] * row[n] * retained[n]
            to_erase -= product * writing[n]
            on_writing[n] += on_row[n] * a - product * e
        on_erase[w], on_add[w] = to_erase, dot(on_row, writing)
        for n in range(len(row)):
            kept = on_row[n] * (one - writing[n] * e)
            on_retained[n] += kept * row[n]
            on_row[n] = kept * retained[n]


@jit
def through_allocate(usage, order, weights, on_weights, on_usage):
    """Add to ``on_usage[N]``, given the free list ``order[N]``."""
    number = usage.dtype.type
    floor, one = number(USAGE_FLOOR), number(1)
    slots = len(usage)
    before = np.empty(slots, usage.dtype)
    left = one
    for n in range(slots):
        before[n] = left
        left *= floor + (one - floor) * usage[int(order[n])]
    after = one - one
    for n in range(slots - 1, -1, -1):
        row = int(order[n])
        floored = floor + (one - floor) * usage[row]
        on_usage[row] += (one - floor) * (after / floored - on_weights[row] * before[n])
        after += on_weights[row] * weights[row]


@jit
def through_retain(fields, at, reading, on_retained, on_fields, on_reading):
    """``on_reading[R, N]`` is added to."""
    one = on_retained.dtype.type(1)
    others = np.empty(len(on_retained), on_retained.dtype)
    for h in range(len(reading)):
        copy(on_retained, others)
        for g in range(len(reading)):
            if g != h:
                free, read = fields[at[FREE] + g], reading[g]
                for n in range(len(others)):
                    others[n] *= one - free * read[n]
        on_fields[at[FREE] + h] = -dot(others, reading[h])
        accumulate(on_reading[h], others, -fields[at[FREE] + h])


@jit
def backward(
    low,
    high,
    t,
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
    on_memory,
    on_usage,
    on_reading,
    on_writing,
    on_precedence,
    on_links,
    on_reads,
    on_said,
    at,
    deallocation,
):
    """Backward through step ``t``: gradients of states in place, from those after it to those before it.

    ``on_reads[B, R W]``: of the step's reads; for a padded step it stays, as the gradient of the reads
    before, else it becomes zero. ``on_said[B, I]`` is filled.
    """
    width, slots, heads = memory.shape[2], memory.shape[3], reading.shape[2]
    zero, one = memory.dtype.type(0), memory.dtype.type(1)
    linked, sharpens, masked = at[MASKS] > at[MODES], at[END] > at[SHARPNESS], at[SHARPNESS] > at[MASKS]
    squares, mask = np.empty((width, slots), memory.dtype), np.empty(width, memory.dtype)
    on_before = np.empty((heads, slots), memory.dtype)
    on_backward, on_forward = np.empty((heads, slots), memory.dtype), np.empty((heads, slots), memory.dtype)
    on_found, retained = np.empty(slots, memory.dtype), np.empty(slots, memory.dtype)
    on_retained, kept = np.empty(slots, memory.dtype), np.empty(slots, memory.dtype)
    factors = np.empty((width, heads), memory.dtype)
    for b in range(low, high):
        on_fields, on_read = on_said[b], on_reads[b]
        if not valid[t, b]:
            on_fields[:] = zero
            continue
        fields, before, after, on_rows = said[t, b], memory[t, b], memory[t + 1, b], on_memory[b]
        previous, on_written, on_used = reading[t, b], on_writing[b], on_usage[b]
        on_before[:] = zero
        # Reading.
        square(after, squares)
        for h in range(heads):
            for w in range(width):
                factors[w, h] = on_read[h * width + w]
            combine(on_reading[b, h], after, on_read[h * width : (h + 1) * width])
        for w in range(width):
            combine(on_rows[w], reading[t + 1, b], factors[w])
        for n in range(len(on_read)):
            on_read[n] = zero
        for h in range(heads):
            on_focus, found = on_reading[b, h], content[t, b, h]
            copy(on_focus, on_found)
            if linked:
                modes = fields[at[MODES] + 3 * h : at[MODES] + 3 * h + 3]
                on_modes = on_fields[at[MODES] + 3 * h : at[MODES] + 3 * h + 3]
                leads = sharp[t, b] if sharpens else followed[t, b]
                on_modes[0], on_modes[1] = dot(on_focus, leads[0, h]), dot(on_focus, found)
                on_modes[2] = dot(on_focus, leads[1, h])
                on_back, on_ahead = on_backward[h], on_forward[h]
                for n in range(slots):
                    on_back[n], on_ahead[n] = modes[0] * on_focus[n], modes[2] * on_focus[n]
                    on_found[n] *= modes[1]
                if sharpens:
                    where = at[SHARPNESS] + 2 * h
                    raw = followed[t, b]
                    on_fields[where] = through_sharpen(raw[0, h], fields[where], leads[0, h], on_back)
                    on_fields[where + 1] = through_sharpen(
                        raw[1, h], fields[where + 1], leads[1, h], on_ahead
                    )
            cosines, strength = similar[t, b, h], at[STRENGTHS] + h
            on_fields[strength] = through_focus(found, cosines, fields[strength], on_found)
            squared_mask(fields, at[MASKS], at[WRITE_MASK], h, mask)
            here, until = at[KEYS] + h * width, at[KEYS] + (h + 1) * width
            on_mask = on_fields[at[MASKS] + h * width : at[MASKS] + (h + 1) * width]
            key, on_key, scale = fields[here:until], on_fields[here:until], scales[t, b, h]
            through_similarity(
                after, squares, key, mask, scale, cosines, on_found, on_rows, on_key, on_mask, masked
            )
        if linked:
            through_relink(
                links[t, b],
                links[t + 1, b],
                precedence[t, b],
                writing[t + 1, b],
                previous,
                on_backward,
                on_forward,
                on_links[b],
                on_before,
                on_written,
                on_precedence[b],
            )
        # Writing.
        retain(fields, at, previous, retained)
        copy(retained, kept)
        for n in range(slots):
            on_retained[n] = zero
            if not deallocation:
                kept[n] = one
        erase, on_erase = fields[at[ERASE] : at[ADD]], on_fields[at[ERASE] : at[ADD]]
        add, on_add = fields[at[ADD] : at[FREE]], on_fields[at[ADD] : at[FREE]]
        written = writing[t + 1, b]
        through_write(before, kept, written, erase, add, on_rows, on_retained, on_written, on_erase, on_add)
        if not deallocation:
            for n in range(slots):
                on_retained[n] = zero
        gate, share = fields[at[WRITE]], fields[at[ALLOCATION]]
        found, free = content[t, b, heads], allocated[t, b]
        to_gate, to_share = zero, zero
        for n in range(slots):
            to_gate += on_written[n] * (share * free[n] + (one - share) * found[n])
            to_share += on_written[n] * (free[n] - found[n])
        on_fields[at[WRITE]], on_fields[at[ALLOCATION]] = to_gate, gate * to_share
        for n in range(slots):
            on_found[n] = gate * (one - share) * on_written[n]
        strength = at[WRITE_STRENGTH]
        cosines = similar[t, b, heads]
        on_fields[strength] = through_focus(found, cosines, fields[strength], on_found)
        square(before, squares)
        squared_mask(fields, at[WRITE_MASK], at[SHARPNESS], 0, mask)
        key, on_key = fields[at[WRITE_KEY] : strength], on_fields[at[WRITE_KEY] : strength]
        on_mask, scale = on_fields[at[WRITE_MASK] : at[SHARPNESS]], scales[t, b, heads]
        through_similarity(
            before, squares, key, mask, scale, cosines, on_found, on_rows, on_key, on_mask, masked
        )
        for n in range(slots):
            on_written[n] *= gate * share
        through_allocate(usage[t + 1, b], order[t, b], free, on_written, on_used)
        # Usage.
        used, last = usage[t, b], writing[t, b]
        for n in range(slots):
            on_retained[n] += on_used[n] * (used[n] + last[n] - used[n] * last[n])
        for n in range(slots):
            on_used[n] *= retained[n]
            on_written[n] = on_used[n] * (one - used[n])
            on_used[n] *= one - last[n]
        through_retain(fields, at, previous, on_retained, on_fields, on_before)
        on_reading[b] = on_before
        inactivate(fields, on_fields, at)
