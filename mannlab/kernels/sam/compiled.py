"""A step of Sparse Access Memory, compiled by numba for CPUs, with its backward pass written by hand.

Arrays are those of :class:`mannlab.kernels.sam.layout.Cells` and ``History``, as numpy arrays; the
equations are those of ``naive.py``. Types are left to numba, which compiles for 32 and 64 bits.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from mannlab.kernels.sam.layout import DELTA, NORM_EPSILON

# Sums may be reordered, so that they use vector units; NaN and infinity keep their meaning.
jit: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@jit
def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@jit
def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


# ---------------------------------------------------------------------- the circle of rows by last access


@jit
def following(after, i):
    return after[i] + (i + 1 if i + 1 < len(after) else 0)


@jit
def preceding(before, i):
    return before[i] + (i - 1 if i > 0 else len(before) - 1)


@jit
def link(after, before, i, j):
    """Let row ``j`` follow row ``i``."""
    after[i] = j - (i + 1 if i + 1 < len(after) else 0)
    before[j] = i - (j - 1 if j > 0 else len(before) - 1)


@jit
def make_newest(after, before, i):
    sentinel = len(after) - 1
    link(after, before, preceding(before, i), following(after, i))
    newest = preceding(before, sentinel)
    link(after, before, newest, i)
    link(after, before, i, sentinel)


@jit
def mark_accessed(after, before, touched, amounts, count):
    """Move every row whose amounts sum to more than delta to the end, in the order of row numbers."""
    for n in range(1, count):  # sorted by insertion: there are few
        row, amount, m = touched[n], amounts[n], n
        while m > 0 and touched[m - 1] > row:
            touched[m], amounts[m] = touched[m - 1], amounts[m - 1]
            m -= 1
        touched[m], amounts[m] = row, amount
    n = 0
    while n < count:
        row, total = touched[n], amounts[n]
        n += 1
        while n < count and touched[n] == row:
            total += amounts[n]
            n += 1
        if total > DELTA:
            make_newest(after, before, row)


# ---------------------------------------------------------------------- forward


@jit
def activate(interface, said, heads, width):
    strengths = heads * width
    adds = strengths + heads
    gates = adds + heads * width
    for i in range(strengths):
        said[i] = interface[i]
    for i in range(strengths, adds):
        said[i] = softplus(interface[i])
    for i in range(adds, gates):
        said[i] = math.tanh(interface[i])
    for i in range(gates, gates + 2 * heads):
        said[i] = sigmoid(interface[i])


@jit
def inverse_norm(row):
    total = row.dtype.type(0)
    for w in range(len(row)):
        total += row[w] * row[w]
    return 1 / math.sqrt(total + NORM_EPSILON)


@jit
def write(memory, scale, said, recycled, rows, weights, journal):
    """Keep the rows that change, recycle the least recently used ones, add to them and to those read last."""
    heads, sparsity = rows.shape
    width = memory.shape[1]
    adds = heads * width + heads
    gates = adds + heads * width
    for h in range(heads):
        journal[h] = memory[recycled[h]]
        for k in range(sparsity):
            journal[heads + h * sparsity + k] = memory[rows[h, k]]
    for h in range(heads):
        memory[recycled[h]] = 0
    for h in range(heads):
        add = said[adds + h * width : adds + (h + 1) * width]
        gate, old = said[gates + h], said[gates + heads + h]
        fresh = gate * (1 - old)
        row = memory[recycled[h]]
        for w in range(width):
            row[w] += fresh * add[w]
        for k in range(sparsity):
            share = gate * old * weights[h, k]
            row = memory[rows[h, k]]
            for w in range(width):
                row[w] += share * add[w]
    for h in range(heads):
        scale[recycled[h]] = inverse_norm(memory[recycled[h]])
        for k in range(sparsity):
            scale[rows[h, k]] = inverse_norm(memory[rows[h, k]])


@jit
def keep_best(row, score, rows, scores):
    """Insert into a list of the best, best first; of equal ones the earlier stays ahead."""
    k = len(scores) - 1
    while k > 0 and score > scores[k - 1]:
        rows[k], scores[k] = rows[k - 1], scores[k - 1]
        k -= 1
    rows[k], scores[k] = row, score


@jit
def keep_better(row, score, rows, scores):
    """The same for rows in any order: of equal ones the lower stays ahead."""
    k = len(scores) - 1
    while k > 0 and (score > scores[k - 1] or (score == scores[k - 1] and row < rows[k - 1])):
        rows[k], scores[k] = rows[k - 1], scores[k - 1]
        k -= 1
    rows[k], scores[k] = row, score


@jit
def search_live(memory, scale, keys, limit, rows, scores):
    """The K rows below ``limit`` that are most like each key; ``keys[H, W]`` have length one."""
    heads, sparsity = rows.shape
    width = memory.shape[1]
    zero = memory.dtype.type(0)
    for h in range(heads):
        for k in range(sparsity):
            # Valid rows even if every score is NaN.
            rows[h, k], scores[h, k] = k, -np.inf
    for i in range(limit):
        for h in range(heads):
            # From zero, not from the first product: then whole vector registers divide the width.
            score = zero
            for w in range(width):
                score += memory[i, w] * keys[h, w]
            score *= scale[i]
            if score > scores[h, sparsity - 1]:
                keep_best(i, score, rows[h], scores[h])


@jit
def search_among(memory, scale, keys, candidates, rows, scores):
    """The same among ``candidates[H, C]`` (-1 for none), which may come twice and in any order."""
    heads, sparsity = rows.shape
    width = memory.shape[1]
    zero = memory.dtype.type(0)
    for h in range(heads):
        for k in range(sparsity):
            rows[h, k], scores[h, k] = -1, -np.inf
        for i in candidates[h]:
            known = i < 0
            for k in range(sparsity):
                known = known or rows[h, k] == i
            if known:
                continue
            score = zero
            for w in range(width):
                score += memory[i, w] * keys[h, w]
            score *= scale[i]
            k = sparsity - 1
            if score > scores[h, k] or (score == scores[h, k] and i < rows[h, k]):
                keep_better(i, score, rows[h], scores[h])
        spare = 0
        for k in range(sparsity):
            if rows[h, k] >= 0:
                continue
            taken = True
            while taken:  # too few candidates: any other rows
                taken = False
                for other in range(sparsity):
                    taken = taken or rows[h, other] == spare
                spare += taken
            rows[h, k] = spare
            scores[h, k] = 0
            for w in range(width):
                scores[h, k] += memory[spare, w] * keys[h, w] * scale[spare]


@jit
def compare(keys, candidates, cells, cosines, best):
    """Cosines ``[B, H, K]`` of the best among the candidates, and of the best of all rows."""
    batch, _, sparsity = cosines.shape
    rows = np.empty(cosines.shape[1:], np.int64)
    for b in range(batch):
        search_among(cells.memory[b], cells.scale[b], keys[b], candidates[b], rows, cosines[b])
        limit = min(cells.live[b] + sparsity, cells.memory.shape[1])
        search_live(cells.memory[b], cells.scale[b], keys[b], limit, rows, best[b])


@jit
def read(memory, said, rows, weights, cosines, reads):
    """Softmax of strength times cosine over the rows found, and their weighted sum."""
    heads, sparsity = rows.shape
    width = memory.shape[1]
    for h in range(heads):
        strength = said[heads * width + h]
        highest = -np.inf
        for k in range(sparsity):
            highest = max(highest, strength * cosines[h, k])
        total = strength * 0
        for k in range(sparsity):
            weights[h, k] = math.exp(strength * cosines[h, k] - highest)
            total += weights[h, k]
        out = reads[h * width : (h + 1) * width]
        out[:] = 0
        for k in range(sparsity):
            weights[h, k] /= total
            row = memory[rows[h, k]]
            for w in range(width):
                out[w] += weights[h, k] * row[w]


@jit
def unit_keys(said, keys):
    heads, width = keys.shape
    for h in range(heads):
        key = said[h * width : (h + 1) * width]
        length = inverse_norm(key)
        for w in range(width):
            keys[h, w] = key[w] * length


@jit
def note_accesses(cells_after, cells_before, said, recycled, before_rows, before_weights, rows, weights):
    heads, sparsity = rows.shape
    gates = len(said) - 2 * heads
    touched = np.empty(heads * (1 + 2 * sparsity), np.int64)
    amounts = np.empty(heads * (1 + 2 * sparsity), weights.dtype)
    n = 0
    for h in range(heads):
        gate, old = said[gates + h], said[gates + heads + h]
        touched[n], amounts[n] = recycled[h], gate * (1 - old)
        n += 1
        for k in range(sparsity):
            touched[n], amounts[n] = before_rows[h, k], gate * old * before_weights[h, k]
            touched[n + 1], amounts[n + 1] = rows[h, k], weights[h, k]
            n += 2
    mark_accessed(cells_after, cells_before, touched, amounts, n)


@jit
def begin(s, interface, valid, before_rows, before_weights, cells, history):
    """The first half of step ``s``: activations and the write; padding holds everything as it was."""
    heads, width = history.rows.shape[2], cells.memory.shape[2]
    slots = cells.memory.shape[1]
    for b in range(len(interface)):
        if not valid[b]:
            history.recycled[s, b] = -1
            history.rows[s, b] = before_rows[b]
            history.weights[s, b] = before_weights[b]
            continue
        activate(interface[b], history.said[s, b], heads, width)
        row = slots
        highest = cells.live[b]
        for h in range(heads):
            row = following(cells.after[b], row)
            history.recycled[s, b, h] = row
            highest = max(highest, row + 1)
        cells.live[b] = highest
        write(
            cells.memory[b],
            cells.scale[b],
            history.said[s, b],
            history.recycled[s, b],
            before_rows[b],
            before_weights[b],
            history.journal[s, b],
        )


@jit
def finish(s, candidates, before_rows, before_weights, cells, history, reads):
    """The second half of step ``s``: search, read, usage. With no candidates every live row is searched."""
    _, batch, heads, sparsity = history.rows.shape
    slots, width = cells.memory.shape[1:]
    keys = np.empty((heads, width), cells.memory.dtype)
    for b in range(batch):
        if history.recycled[s, b, 0] < 0:
            reads[b] = 0
            continue
        memory, said, rows = cells.memory[b], history.said[s, b], history.rows[s, b]
        unit_keys(said, keys)
        if candidates.shape[2] > 0:
            search_among(memory, cells.scale[b], keys, candidates[b], rows, history.cosines[s, b])
        else:
            # Rows never touched are all alike: the first K of them stand for the rest.
            limit = min(cells.live[b] + sparsity, slots)
            search_live(memory, cells.scale[b], keys, limit, rows, history.cosines[s, b])
        read(memory, said, rows, history.weights[s, b], history.cosines[s, b], reads[b])
        for h in range(heads):
            for k in range(sparsity):
                cells.live[b] = max(cells.live[b], rows[h, k] + 1)
        note_accesses(
            cells.after[b],
            cells.before[b],
            said,
            history.recycled[s, b],
            before_rows[b],
            before_weights[b],
            rows,
            history.weights[s, b],
        )


@jit
def step(s, interface, valid, before_rows, before_weights, cells, history, reads):
    """A whole step with exact search."""
    begin(s, interface, valid, before_rows, before_weights, cells, history)
    everywhere = np.empty((len(interface), 0, 0), np.int64)
    finish(s, everywhere, before_rows, before_weights, cells, history, reads)


# ---------------------------------------------------------------------- backward


@jit
def swap(s, before_rows, cells, history):
    """Exchange the changed rows with the journal: undoes step ``s``, or does it again."""
    _, batch, heads, sparsity = history.rows.shape
    width = cells.memory.shape[2]
    now = np.empty((heads * (1 + sparsity), width), cells.memory.dtype)
    for b in range(batch):
        if history.recycled[s, b, 0] < 0:
            continue
        memory, journal = cells.memory[b], history.journal[s, b]
        for e in range(len(now)):
            h, k = (e - heads) // sparsity, (e - heads) % sparsity
            row = history.recycled[s, b, e] if e < heads else before_rows[b, h, k]
            now[e] = memory[row]
        for e in range(len(now)):
            h, k = (e - heads) // sparsity, (e - heads) % sparsity
            row = history.recycled[s, b, e] if e < heads else before_rows[b, h, k]
            memory[row] = journal[e]
            cells.scale[b, row] = inverse_norm(memory[row])
        journal[:] = now


@jit
def backward_read(memory, gradient, said, rows, weights, cosines, grad_reads, grad_weights, out):
    """From gradients of reads and weights to those of keys, strengths and rows."""
    heads, sparsity = rows.shape
    width = memory.shape[1]
    from_cosine = np.empty(sparsity, memory.dtype)
    for h in range(heads):
        key, grad_key = said[h * width : (h + 1) * width], out[h * width : (h + 1) * width]
        grad_read = grad_reads[h * width : (h + 1) * width]
        strength = said[heads * width + h]
        mean = strength * 0
        for k in range(sparsity):
            row, total = memory[rows[h, k]], grad_weights[h, k]
            for w in range(width):
                total += grad_read[w] * row[w]
            from_cosine[k] = total
            mean += weights[h, k] * total
        grad_strength = strength * 0
        per_key = inverse_norm(key)
        shrink = strength * 0
        grad_key[:] = 0
        for k in range(sparsity):
            score = weights[h, k] * (from_cosine[k] - mean)
            grad_strength += score * cosines[h, k]
            share = score * strength
            row, grad_row = memory[rows[h, k]], gradient[rows[h, k]]
            per_row = inverse_norm(row)
            shrink += share * cosines[h, k]
            along, across = share * per_key * per_row, share * cosines[h, k] * per_row * per_row
            for w in range(width):
                grad_key[w] += along * row[w]
                grad_row[w] += weights[h, k] * grad_read[w] + along * key[w] - across * row[w]
        for w in range(width):
            grad_key[w] -= shrink * per_key * per_key * key[w]
        out[heads * width + h] = grad_strength * (1 - math.exp(-strength))


@jit
def backward_write(gradient, said, recycled, rows, weights, out, grad_before):
    """From gradients of rows after the write to those of the write's fields and of the rows before it."""
    heads, sparsity = rows.shape
    width = gradient.shape[1]
    adds = heads * width + heads
    gates = adds + heads * width
    for h in range(heads):
        add, grad_add = said[adds + h * width : adds + (h + 1) * width], out[adds + h * width :]
        gate, old = said[gates + h], said[gates + heads + h]
        grad_row = gradient[recycled[h]]
        on_fresh = gate * 0
        for w in range(width):
            on_fresh += add[w] * grad_row[w]
            grad_add[w] = gate * (1 - old) * grad_row[w]
        on_old = gate * 0
        for k in range(sparsity):
            grad_row = gradient[rows[h, k]]
            along = gate * 0
            for w in range(width):
                along += add[w] * grad_row[w]
                grad_add[w] += gate * old * weights[h, k] * grad_row[w]
            on_old += weights[h, k] * along
            grad_before[h, k] = gate * old * along
        for w in range(width):
            grad_add[w] *= 1 - add[w] * add[w]
        out[gates + h] = ((1 - old) * on_fresh + old * on_old) * gate * (1 - gate)
        out[gates + heads + h] = gate * (on_old - on_fresh) * old * (1 - old)
    for h in range(heads):
        gradient[recycled[h]] = 0


@jit
def backward(
    s, before_rows, before_weights, cells, gradient, history, grad_reads, grad_weights, out, grad_before
):
    """Gradients of step ``s``, then undo it.

    Args:
        gradient: ``[B, N, W]``, of the memory after the step; becomes that of the memory before it.
        grad_reads: ``[B, H * W]``.
        grad_weights: ``[B, H, K]``, of this step's read weights, from the next step's write.
        out: ``[B, I]``, receives the interface's gradient.
        grad_before: ``[B, H, K]``, receives that of the weights of the read before.
    """
    for b in range(len(out)):
        if history.recycled[s, b, 0] < 0:
            out[b] = 0
            grad_before[b] = grad_weights[b]
            continue
        said, rows, weights = history.said[s, b], history.rows[s, b], history.weights[s, b]
        backward_read(
            cells.memory[b],
            gradient[b],
            said,
            rows,
            weights,
            history.cosines[s, b],
            grad_reads[b],
            grad_weights[b],
            out[b],
        )
        backward_write(
            gradient[b],
            said,
            history.recycled[s, b],
            before_rows[b],
            before_weights[b],
            out[b],
            grad_before[b],
        )
    swap(s, before_rows, cells, history)


# ---------------------------------------------------------------------- reset


@jit
def forget_row(after, before, i):
    """Put row ``i`` and its neighbours back to their first places in the circle."""
    last = len(after) - 1
    for j in (i - 1 if i > 0 else last, i, i + 1):
        after[j] = 0
        before[j] = 0


@jit
def forget(steps, cells, gradient, history, start_live):
    """After so many steps, all undone, bring circle and gradient back: only what the steps used."""
    _, batch, heads, sparsity = history.rows.shape
    for b in range(batch):
        after, before = cells.after[b], cells.before[b]
        # The sentinel's neighbour, the newest row at first, points to the first row used.
        after[len(after) - 2 :] = 0
        before[len(before) - 2 :] = 0
        for s in range(steps):
            if history.recycled[s, b, 0] < 0:
                continue
            for h in range(heads):
                forget_row(after, before, history.recycled[s, b, h])
                for k in range(sparsity):
                    forget_row(after, before, history.rows[s, b, h, k])
                if gradient.shape[1] > 0:
                    gradient[b, history.recycled[s, b, h]] = 0
                    for k in range(sparsity):
                        gradient[b, history.rows[s, b, h, k]] = 0
        cells.live[b] = start_live


@jit
def clear(cells, gradient):
    """Zero the gradient of the rows in use."""
    for b in range(len(cells.live)):
        gradient[b, : cells.live[b]] = 0


@jit
def reset(cells, gradient, initial, initial_scale):
    """Bring everything in use back, wherever it stands; ``initial[N, W]``, of no rows if zeros."""
    for b in range(len(cells.live)):
        used = cells.live[b]
        if len(initial) > 0:
            cells.memory[b, :used] = initial[:used]
            cells.scale[b, :used] = initial_scale[:used]
        else:
            cells.memory[b, :used] = 0
            cells.scale[b, :used] = 0
        last = cells.memory.shape[1]
        reach = min(used + 1, last)
        for links in (cells.after[b], cells.before[b]):
            links[:reach] = 0
            links[last - 1 :] = 0
        if gradient.shape[1] > 0:
            gradient[b, :used] = 0
        cells.live[b] = len(initial)


@jit
def scales(rows, out):
    """One over the norm of every row."""
    for i in range(len(rows)):
        out[i] = inverse_norm(rows[i])


@jit
def copy(source, target):
    """Copy the rows in use."""
    for b in range(len(source.live)):
        used = source.live[b]
        target.memory[b, :used] = source.memory[b, :used]
        target.scale[b, :used] = source.scale[b, :used]
        last = source.memory.shape[1]
        reach = min(used + 1, last)
        target.after[b, :reach] = source.after[b, :reach]
        target.before[b, :reach] = source.before[b, :reach]
        target.after[b, last - 1 :] = source.after[b, last - 1 :]
        target.before[b, last - 1 :] = source.before[b, last - 1 :]
        target.live[b] = used
