"""A step of a Neural Turing Machine's memory for CPUs, compiled by numba, with its backward pass by hand.

The equations are those of ``naive.py``. Arrays are whole histories, time first; see ``cell.py``. A memory
lies here as ``[W, N]``, slots last, so that the inner loops run over slots whatever the width of a word.
Types are left to numba, which compiles for 32 and 64 bits; constants are of the arrays' type, or all would
become double.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from mannlab.kernels.elementary import (
    each_sigmoid,
    each_softplus,
    each_tanh,
    exp,
    log,
    through_sigmoid,
    through_tanh,
)
from mannlab.kernels.ntm.constants import NORM_EPSILON, SMALLEST_WEIGHT
from mannlab.kernels.vectors import accumulate, compare, dot, inlined, inverse_norm, jit, soften


@jit
def activate(said, heads, writers, width, shifts):
    """The interface's fields, in place, in the order of ``DenseMemory.fields``."""
    one = said.dtype.type(1)
    strengths = heads * width
    gates, moves = strengths + heads, strengths + 2 * heads
    exponents = moves + heads * shifts
    erases = exponents + heads
    adds = erases + writers * width
    each_tanh(said[:strengths])
    each_softplus(said[strengths:gates])
    each_sigmoid(said[gates:moves])
    for h in range(heads):
        soften(said[moves + h * shifts : moves + (h + 1) * shifts])
    powers = said[exponents:erases]
    each_softplus(powers)
    for n in range(heads):
        powers[n] += one
    each_sigmoid(said[erases:adds])
    each_tanh(said[adds:])


@jit
def inactivate(said, on, heads, writers, width, shifts):
    """Gradient of the fields to that of what they were made from, in place."""
    one = said.dtype.type(1)
    strengths = heads * width
    gates, moves = strengths + heads, strengths + 2 * heads
    exponents = moves + heads * shifts
    erases = exponents + heads
    adds = erases + writers * width
    through_tanh(said[:strengths], on[:strengths])
    for n in range(strengths, gates):
        on[n] *= one - exp(-said[n])
    through_sigmoid(said[gates:moves], on[gates:moves])
    for h in range(heads):
        low, high = moves + h * shifts, moves + (h + 1) * shifts
        chances, slopes = said[low:high], on[low:high]
        mean = dot(chances, slopes)
        for n in range(shifts):
            slopes[n] = chances[n] * (slopes[n] - mean)
    for n in range(exponents, erases):
        on[n] *= one - exp(one - said[n])
    through_sigmoid(said[erases:adds], on[erases:adds])
    through_tanh(said[adds:], on[adds:])


@inlined
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
        # Slices, and not sums of indices, of which the compiler does not know that they are not negative.
        accumulate(out[start:], source[: slots - start], shift[j])
        accumulate(out[:start], source[slots - start :], shift[j])


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
    one, epsilon, smallest = number(1), number(NORM_EPSILON), number(SMALLEST_WEIGHT)
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
        compare(before, fields[:at_strength], epsilon, scale, similar[i, b])
        for h in range(heads):
            products, chosen, powers = similar[i, b, h], content[i, b, h], logs[i, b, h]
            previous, focus = weights[j, b, h], weights[k, b, h]
            size = inverse_norm(fields[h * width : (h + 1) * width], epsilon)
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
                reads[t + 1, b, h * width + w] = dot(focus, before[w])
        for w in range(width):
            row, new = before[w], after[w]
            if writers == 1:
                focus, erase, add = weights[k, b, readers], fields[at_erase + w], fields[at_add + w]
                for n in range(slots):
                    new[n] = row[n] + focus[n] * (add - row[n] * erase)
                continue
            for n in range(slots):
                kept[n] = row[n]
            for v in range(writers):
                focus, erase = weights[k, b, readers + v], fields[at_erase + v * width + w]
                for n in range(slots):
                    kept[n] *= one - focus[n] * erase
            for v in range(writers):
                accumulate(kept, weights[k, b, readers + v], fields[at_add + v * width + w])
            for n in range(slots):
                new[n] = kept[n]


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
    zero, one, epsilon, smallest = number(0), number(1), number(NORM_EPSILON), number(SMALLEST_WEIGHT)
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
            if writers == 1:
                focus, on_focus = weights[t + 1, b, readers], on_focus_all[readers]
                erase, add, on_erase, on_add = fields[at_erase + w], fields[at_add + w], zero, zero
                for n in range(slots):
                    product = on_row[n] * row[n]
                    on_focus[n] += on_row[n] * add - product * erase
                    on_erase -= product * focus[n]
                    on_add += on_row[n] * focus[n]
                    on_row[n] -= on_row[n] * focus[n] * erase
                on_fields[at_erase + w], on_fields[at_add + w] = on_erase, on_add
            else:
                for n in range(slots):
                    fresh[n] = on_row[n]
                for v in range(writers):
                    focus, on_focus = weights[t + 1, b, readers + v], on_focus_all[readers + v]
                    erase, add = fields[at_erase + v * width + w], fields[at_add + v * width + w]
                    on_erase, on_add = zero, zero
                    for n in range(slots):
                        others[n] = one
                    for u in range(writers):
                        if u != v:
                            other = weights[t + 1, b, readers + u]
                            its_erase = fields[at_erase + u * width + w]
                            for n in range(slots):
                                others[n] *= one - other[n] * its_erase
                    for n in range(slots):
                        product = on_row[n] * row[n] * others[n]
                        on_focus[n] += on_row[n] * add - product * erase
                        on_erase -= product * focus[n]
                        on_add += on_row[n] * focus[n]
                    for n in range(slots):
                        fresh[n] *= one - focus[n] * erase
                    on_fields[at_erase + v * width + w] = on_erase
                    on_fields[at_add + v * width + w] = on_add
                for n in range(slots):
                    on_row[n] = fresh[n]
            for h in range(readers):
                focus, on_focus, part = weights[t + 1, b, h], on_focus_all[h], on_read[h * width + w]
                for n in range(slots):
                    on_focus[n] += part * row[n]
                    on_row[n] += part * focus[n]
        for n in range(len(on_read)):
            on_read[n] = zero
        # Addressing; ``moved`` holds in turn the gradients of what each stage gave.
        for n in range(slots):
            on_scale[n] = zero
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
                ahead, behind, bend = moved[start:], moved[:start], slots - start
                accumulate(fresh[:bend], ahead, shift[s])
                on_shift = dot(ahead, gated[:bend])
                if start > 0:
                    accumulate(fresh[bend:], behind, shift[s])
                    on_shift += dot(behind, gated[bend:])
                on_fields[at_shift + h * shifts + s] = on_shift
            on_gate, mean = zero, zero
            for n in range(slots):
                on_gate += fresh[n] * (chosen[n] - previous[n])
                mean += chosen[n] * fresh[n]
                on_focus[n] = (one - gate) * fresh[n]
            on_fields[at_gate + h] = on_gate
            size = inverse_norm(fields[h * width : (h + 1) * width], epsilon)
            on_strength = zero
            for n in range(slots):
                fresh[n] = gate * chosen[n] * (fresh[n] - mean)
                on_strength += fresh[n] * products[n]
            for n in range(slots):
                on_scale[n] += strength * fresh[n] * products[n]
            for n in range(slots):
                moved[n] = strength * size * fresh[n] * scale[n]
            on_fields[at_strength + h], on_size = on_strength, strength * on_strength
            for w in range(width):
                part = fields[h * width + w]
                accumulate(on_after[w], moved, part)
                on_fields[h * width + w] = dot(moved, before[w]) - part * size * size * on_size
        for n in range(slots):
            on_scale[n] *= scale[n] * scale[n]
        for w in range(width):
            row, on_row = before[w], on_after[w]
            for n in range(slots):
                on_row[n] -= row[n] * on_scale[n]
        inactivate(fields, on_fields, heads, writers, width, shifts)
