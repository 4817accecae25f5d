"""A step of a Neural Turing Machine's memory for CPUs, compiled by numba, with its backward pass by hand.

The equations are those of ``naive.py``. Arrays are whole histories, time first; see ``cell.py``. A memory
lies here as ``[W, N]``, slots last, so that the inner loops run over slots whatever the width of a word.
Types are left to numba, which compiles for 32 and 64 bits; constants are of the arrays' type, or all would
become double.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mannlab.kernels.elementary import exp, log, sigmoid, softplus, tanh
from mannlab.kernels.ntm.constants import NORM_EPSILON, SMALLEST_WEIGHT

# Sums may be reordered, so that they use vector units; NaN and infinity keep their meaning.
jit: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


# Of NaN the largest is any number; what is made of it is NaN all the same.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def largest(values):
    top = values[0]
    for n in range(len(values)):
        top = max(top, values[n])
    return top


@jit
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


@jit
def activate(said, heads, writers, width, shifts):
    """The interface's fields, in place, in the order of ``DenseMemory.fields``."""
    one = said.dtype.type(1)
    at = heads * width
    for n in range(at):
        said[n] = tanh(said[n])
    for n in range(at, at + heads):
        said[n] = softplus(said[n])
    at += heads
    for n in range(at, at + heads):
        said[n] = sigmoid(said[n])
    at += heads
    for _ in range(heads):
        soften(said[at : at + shifts])
        at += shifts
    for n in range(at, at + heads):
        said[n] = one + softplus(said[n])
    at += heads
    for n in range(at, at + writers * width):
        said[n] = sigmoid(said[n])
    at += writers * width
    for n in range(at, at + writers * width):
        said[n] = tanh(said[n])


@jit
def inactivate(said, on, heads, writers, width, shifts):
    """Gradient of the fields to that of what they were made from, in place."""
    one = said.dtype.type(1)
    at = heads * width
    for n in range(at):
        on[n] *= one - said[n] * said[n]
    for n in range(at, at + heads):
        on[n] *= one - exp(-said[n])
    at += heads
    for n in range(at, at + heads):
        on[n] *= said[n] * (one - said[n])
    at += heads
    for _ in range(heads):
        total = one - one
        for n in range(at, at + shifts):
            total += said[n] * on[n]
        for n in range(at, at + shifts):
            on[n] = said[n] * (on[n] - total)
        at += shifts
    for n in range(at, at + heads):
        on[n] *= one - exp(one - said[n])
    at += heads
    for n in range(at, at + writers * width):
        on[n] *= said[n] * (one - said[n])
    at += writers * width
    for n in range(at, at + writers * width):
        on[n] *= one - said[n] * said[n]


@jit
def shifted_by(source, shift, out):
    """Circular convolution: ``out[i]``, the sum over j of ``source[i - (j - S // 2)] * shift[j]``."""
    slots, reach = len(source), len(shift) // 2
    for n in range(slots):
        out[n] = source[n] * shift[reach]
    for j in range(len(shift)):
        move = j - reach
        if move == 0:
            continue
        start = move if move > 0 else slots + move
        probability = shift[j]
        for n in range(start, slots):
            out[n] += source[n - start] * probability
        for n in range(start):
            out[n] += source[n - start + slots] * probability


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
    weights,
    similar,
    content,
    logs,
    scales,
    reads,
    writers,
    shifts,
):
    """Step ``t`` of the batch rows from ``low`` to ``high``.

    ``i``: where the step's own values go. ``j`` and ``k``: where the states before and after it lie.
    """
    width, slots, heads = memory.shape[2], memory.shape[3], weights.shape[2]
    number = memory.dtype.type
    zero, one, epsilon, smallest = number(0), number(1), number(NORM_EPSILON), number(SMALLEST_WEIGHT)
    readers = heads - writers
    at_strength = heads * width
    at_gate = at_strength + heads
    at_shift = at_gate + heads
    at_exponent = at_shift + heads * shifts
    at_erase = at_exponent + heads
    at_add = at_erase + writers * width
    gated = np.empty(slots, memory.dtype)
    kept = np.empty(slots, memory.dtype)
    for b in range(low, high):
        before, after = memory[j, b], memory[k, b]
        if not valid[t, b]:
            after[:] = before
            weights[k, b] = weights[j, b]
            reads[t + 1, b] = reads[t, b]
            continue
        fields, scale = said[i, b], scales[i, b]
        activate(fields, heads, writers, width, shifts)
        scale[:] = epsilon
        similar[i, b] = zero
        for w in range(width):
            row = before[w]
            for n in range(slots):
                scale[n] += row[n] * row[n]
            for h in range(heads):
                part, products = fields[h * width + w], similar[i, b, h]
                for n in range(slots):
                    products[n] += part * row[n]
        for n in range(slots):
            scale[n] = one / np.sqrt(scale[n])
        for h in range(heads):
            products, chosen, powers = similar[i, b, h], content[i, b, h], logs[i, b, h]
            previous, focus = weights[j, b, h], weights[k, b, h]
            size = epsilon
            for w in range(width):
                size += fields[h * width + w] * fields[h * width + w]
            size = one / np.sqrt(size)
            strength, gate = fields[at_strength + h], fields[at_gate + h]
            exponent = fields[at_exponent + h]
            for n in range(slots):
                products[n] *= size * scale[n]
                chosen[n] = strength * products[n]
            soften(chosen)
            for n in range(slots):
                gated[n] = gate * chosen[n] + (one - gate) * previous[n]
            shift = fields[at_shift + h * shifts : at_shift + (h + 1) * shifts]
            shifted_by(gated, shift, focus)
            for n in range(slots):
                powers[n] = log(max(focus[n], smallest))
                focus[n] = exponent * powers[n]
            soften(focus)
        for h in range(readers):
            focus = weights[k, b, h]
            for w in range(width):
                row, total = before[w], zero
                for n in range(slots):
                    total += focus[n] * row[n]
                reads[t + 1, b, h * width + w] = total
        for w in range(width):
            row, new = before[w], after[w]
            kept[:] = row
            for v in range(writers):
                focus, erase = weights[k, b, readers + v], fields[at_erase + v * width + w]
                for n in range(slots):
                    kept[n] *= one - focus[n] * erase
            for v in range(writers):
                focus, add = weights[k, b, readers + v], fields[at_add + v * width + w]
                for n in range(slots):
                    kept[n] += focus[n] * add
            new[:] = kept


@jit
def backward(
    low,
    high,
    t,
    valid,
    said,
    memory,
    weights,
    similar,
    content,
    logs,
    scales,
    on_memory,
    on_weights,
    on_reads,
    on_said,
    writers,
    shifts,
):
    """Backward through step ``t``: ``on_memory[B, W, N]`` and ``on_weights[B, H, N]`` in place, from those of
    the states after the step to those before it. ``on_reads[B, R W]``: of the step's reads; for a padded step
    it stays, as the gradient of the reads before, else it becomes zero. ``on_said[B, I]`` is filled.
    """
    width, slots, heads = memory.shape[2], memory.shape[3], weights.shape[2]
    number = memory.dtype.type
    zero, one, smallest = number(0), number(1), number(SMALLEST_WEIGHT)
    readers = heads - writers
    at_strength = heads * width
    at_gate = at_strength + heads
    at_shift = at_gate + heads
    at_exponent = at_shift + heads * shifts
    at_erase = at_exponent + heads
    at_add = at_erase + writers * width
    gated = np.empty(slots, memory.dtype)
    moved = np.empty(slots, memory.dtype)
    on_scale = np.empty(slots, memory.dtype)
    others = np.empty(slots, memory.dtype)
    fresh = np.empty(slots, memory.dtype)
    for b in range(low, high):
        on_fields = on_said[b]
        if not valid[t, b]:
            on_fields[:] = zero
            continue
        fields, before, scale = said[t, b], memory[t, b], scales[t, b]
        on_after, on_focus_all, on_read = on_memory[b], on_weights[b], on_reads[b]
        # Reading and writing.
        for w in range(width):
            row, on_row = before[w], on_after[w]
            fresh[:] = on_row
            for v in range(writers):
                h = readers + v
                focus, on_focus = weights[t + 1, b, h], on_focus_all[h]
                erase, add = fields[at_erase + v * width + w], fields[at_add + v * width + w]
                on_erase, on_add = zero, zero
                if writers == 1:
                    for n in range(slots):
                        product = on_row[n] * row[n]
                        on_focus[n] += on_row[n] * add - product * erase
                        on_erase -= product * focus[n]
                        on_add += on_row[n] * focus[n]
                else:
                    others[:] = one
                    for u in range(writers):
                        if u != v:
                            other, its_erase = (
                                weights[t + 1, b, readers + u],
                                fields[at_erase + u * width + w],
                            )
                            for n in range(slots):
                                others[n] *= one - other[n] * its_erase
                    for n in range(slots):
                        product = on_row[n] * row[n] * others[n]
                        on_focus[n] += on_row[n] * add - product * erase
                        on_erase -= product * focus[n]
                        on_add += on_row[n] * focus[n]
                for n in range(slots):
                    fresh[n] *= one - focus[n] * erase
                on_fields[at_erase + v * width + w], on_fields[at_add + v * width + w] = on_erase, on_add
            for h in range(readers):
                focus, on_focus, part = weights[t + 1, b, h], on_focus_all[h], on_read[h * width + w]
                for n in range(slots):
                    on_focus[n] += part * row[n]
                    fresh[n] += part * focus[n]
            on_row[:] = fresh
        on_read[:] = zero
        # Addressing; ``moved`` holds in turn the gradients of what each stage gave.
        on_scale[:] = zero
        for h in range(heads):
            products, chosen, powers = similar[t, b, h], content[t, b, h], logs[t, b, h]
            previous, focus, on_focus = weights[t, b, h], weights[t + 1, b, h], on_focus_all[h]
            strength, gate = fields[at_strength + h], fields[at_gate + h]
            exponent = fields[at_exponent + h]
            shift = fields[at_shift + h * shifts : at_shift + (h + 1) * shifts]
            for n in range(slots):
                gated[n] = gate * chosen[n] + (one - gate) * previous[n]
            shifted_by(gated, shift, others)
            mean = zero
            for n in range(slots):
                mean += focus[n] * on_focus[n]
            on_exponent = zero
            for n in range(slots):
                slope = focus[n] * (on_focus[n] - mean)
                on_exponent += slope * powers[n]
                moved[n] = slope * exponent / others[n] if others[n] >= smallest else zero
            on_fields[at_exponent + h] = on_exponent
            reach = shifts // 2
            for n in range(slots):
                fresh[n] = zero
            for s in range(shifts):
                move = s - reach
                start = move if move >= 0 else slots + move
                total, probability = zero, shift[s]
                for n in range(start, slots):
                    total += moved[n] * gated[n - start]
                    fresh[n - start] += moved[n] * probability
                for n in range(start):
                    total += moved[n] * gated[n - start + slots]
                    fresh[n - start + slots] += moved[n] * probability
                on_fields[at_shift + h * shifts + s] = total
            on_gate, mean = zero, zero
            for n in range(slots):
                on_gate += fresh[n] * (chosen[n] - previous[n])
                mean += chosen[n] * fresh[n]
                on_focus[n] = (one - gate) * fresh[n]
            on_fields[at_gate + h] = on_gate
            size = number(NORM_EPSILON)
            for w in range(width):
                size += fields[h * width + w] * fields[h * width + w]
            size = one / np.sqrt(size)
            on_strength, on_size = zero, zero
            for n in range(slots):
                slope = gate * chosen[n] * (fresh[n] - mean)
                on_strength += slope * products[n]
                slope *= strength
                on_size += slope * products[n]
                on_scale[n] += slope * products[n]
                moved[n] = slope * size * scale[n]
            on_fields[at_strength + h] = on_strength
            for w in range(width):
                row, on_row, part, total = before[w], on_after[w], fields[h * width + w], zero
                for n in range(slots):
                    total += moved[n] * row[n]
                    on_row[n] += moved[n] * part
                on_fields[h * width + w] = total - part * size * size * on_size
        for n in range(slots):
            on_scale[n] *= scale[n] * scale[n]
        for w in range(width):
            row, on_row = before[w], on_after[w]
            for n in range(slots):
                on_row[n] -= row[n] * on_scale[n]
        inactivate(fields, on_fields, heads, writers, width, shifts)
