"""A step of the Sparse Differentiable Neural Computer, compiled by numba for CPUs, and its backward pass.

The equations are those of ``naive.py``; what it shares with Sparse Access Memory comes from there. An
interface starts with the read modes (backward, content, forward: 3 a head), and what follows is SAM's.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math

import numpy as np

from mannlab.kernels.sam.compiled import (
    activate,
    backward_write,
    following,
    forget_row,
    inverse_norm,
    jit,
    note_accesses,
    search_live,
    unit_keys,
    write,
)

# ---------------------------------------------------------------------- short lists of (row, value)


@jit
def add_to(rows, values, count, row, value):
    """Add to the value of a row in a list, which may grow by one; returns the list's length."""
    for n in range(count):
        if rows[n] == row:
            values[n] += value
            return count
    rows[count], values[count] = row, value
    return count + 1


@jit
def best_of(rows, values, count, out_rows, out_values):
    """The largest values of a list, largest first, of equal ones the lower row; 0 at row 0 where too few."""
    size = len(out_rows)
    for k in range(size):
        out_rows[k], out_values[k] = 0, 0
    kept = 0
    for n in range(count):
        value, row = values[n], rows[n]
        if not value > 0:
            continue
        k = kept if kept < size else size - 1
        if kept == size and not (value > out_values[k] or (value == out_values[k] and row < out_rows[k])):
            continue
        while k > 0 and (value > out_values[k - 1] or (value == out_values[k - 1] and row < out_rows[k - 1])):
            out_rows[k], out_values[k] = out_rows[k - 1], out_values[k - 1]
            k -= 1
        out_rows[k], out_values[k] = row, value
        kept = min(kept + 1, size)


# ---------------------------------------------------------------------- links


@jit
def update_links(cells, b, said, recycled, before_rows, before_weights, rows, values):
    """Link this step's write to the last one; ``rows`` and ``values`` are room to work in."""
    heads, depth = before_rows.shape
    links = cells.last_rows.shape[1]
    gates = len(said) - 2 * heads
    most = heads * (1 + depth)
    written, amounts = np.empty(most, np.int64), np.empty(most, values.dtype)
    count = 0
    total = values[0] * 0
    for h in range(heads):
        gate, old = said[gates + h], said[gates + heads + h]
        count = add_to(written, amounts, count, recycled[h], gate * (1 - old))
        for d in range(depth):
            count = add_to(written, amounts, count, before_rows[h, d], gate * old * before_weights[h, d])
    for n in range(count):
        total += amounts[n]
    share = 1 / max(total, 1.0)
    sure = values[0] * 0
    for n in range(count):
        amounts[n] *= share
        sure += amounts[n]
    last_rows, last_links = cells.last_rows[b], cells.last_links[b]
    next_rows, next_links = cells.next_rows[b], cells.next_links[b]
    prev_rows, prev_links = cells.prev_rows[b], cells.prev_links[b]

    # Rows whose links forward change: those written last, and those that link to a row now written.
    reached = np.empty(links * (1 + count), np.int64)
    reach = 0
    for k in range(links):
        if last_links[k] > 0:
            reached[reach] = last_rows[k]
            reach += 1
    for n in range(count):
        if amounts[n] > 0:
            for k in range(links):
                i = prev_rows[written[n], k]
                if prev_links[written[n], k] > 0:
                    known = False
                    for m in range(reach):
                        known = known or reached[m] == i
                    if not known:
                        reached[reach] = i
                        reach += 1
    for m in range(reach):
        i = reached[m]
        size = 0
        for k in range(links):
            if next_links[i, k] > 0:
                rows[size], values[size] = next_rows[i, k], next_links[i, k]
                size += 1
        precedence = values[0] * 0
        for k in range(links):
            if last_links[k] > 0 and last_rows[k] == i:
                precedence = last_links[k]
        for n in range(count):
            j, amount = written[n], amounts[n]
            for k in range(size):
                if rows[k] == j:
                    values[k] *= 1 - amount
            if j != i and amount > 0 and precedence > 0:
                size = add_to(rows, values, size, j, amount * precedence)
        best_of(rows, values, size, next_rows[i], next_links[i])

    for n in range(count):
        i, amount = written[n], amounts[n]
        if not amount > 0:
            continue
        size = 0
        for k in range(links):
            if prev_links[i, k] > 0:
                rows[size], values[size] = prev_rows[i, k], (1 - amount) * prev_links[i, k]
                size += 1
        for k in range(links):
            if last_links[k] > 0 and last_rows[k] != i:
                size = add_to(rows, values, size, last_rows[k], amount * last_links[k])
        best_of(rows, values, size, prev_rows[i], prev_links[i])

    size = 0
    for k in range(links):
        if last_links[k] > 0:
            rows[size], values[size] = last_rows[k], (1 - sure) * last_links[k]
            size += 1
    for n in range(count):
        size = add_to(rows, values, size, written[n], amounts[n])
    best_of(rows, values, size, last_rows, last_links)


@jit
def follow(link_rows, links, before_rows, before_weights, found_rows, found, paths, rows, values):
    """Where the links lead from the rows read before: the best of it, and the links taken ``[D, K]``."""
    depth, sparsity = len(before_rows), len(found)
    size = 0
    for d in range(depth):
        if before_weights[d] > 0:
            for k in range(links.shape[1]):
                link = links[before_rows[d], k]
                if link > 0:
                    row = link_rows[before_rows[d], k]
                    size = add_to(rows, values, size, row, before_weights[d] * link)
    best_of(rows, values, size, found_rows, found)
    for d in range(depth):
        for j in range(sparsity):
            paths[d, j] = 0
            if found[j] > 0:
                for k in range(links.shape[1]):
                    if links[before_rows[d], k] > 0 and link_rows[before_rows[d], k] == found_rows[j]:
                        paths[d, j] = links[before_rows[d], k]


# ---------------------------------------------------------------------- forward


@jit
def step(s, interface, valid, before_rows, before_weights, cells, history, reads):
    """A whole step; padding holds everything as it was."""
    _, batch, heads, depth = history.rows.shape
    slots, width = cells.memory.shape[1:]
    sparsity, links = depth // 3, cells.last_rows.shape[1]
    keys = np.empty((heads, width), cells.memory.dtype)
    found_rows = np.empty((heads, sparsity), np.int64)
    room = max(links * depth, (links + 1) * (2 + heads * (1 + depth))) + 1
    rows, values = np.empty(room, np.int64), np.zeros(room, cells.memory.dtype)
    for b in range(batch):
        if not valid[b]:
            history.recycled[s, b] = -1
            history.rows[s, b] = before_rows[b]
            history.weights[s, b] = before_weights[b]
            reads[b] = 0
            continue
        memory, said = cells.memory[b], history.said[s, b, 3 * heads :]
        modes = history.said[s, b, : 3 * heads]
        activate(interface[b, 3 * heads :], said, heads, width)
        for h in range(heads):
            highest = max(interface[b, 3 * h], max(interface[b, 3 * h + 1], interface[b, 3 * h + 2]))
            total = highest * 0
            for m in range(3):
                modes[3 * h + m] = math.exp(interface[b, 3 * h + m] - highest)
                total += modes[3 * h + m]
            for m in range(3):
                modes[3 * h + m] /= total
        row = slots
        recycled = history.recycled[s, b]
        for h in range(heads):
            row = following(cells.after[b], row)
            recycled[h] = row
            cells.live[b] = max(cells.live[b], row + 1)
        was_rows, was_weights = before_rows[b], before_weights[b]
        write(memory, cells.scale[b], said, recycled, was_rows, was_weights, history.journal[s, b])
        update_links(cells, b, said, recycled, was_rows, was_weights, rows, values)

        unit_keys(said, keys)
        limit = min(cells.live[b] + sparsity, slots)
        cosines = history.cosines[s, b]
        search_live(memory, cells.scale[b], keys, limit, found_rows, cosines)
        now_rows, parts = history.rows[s, b], history.parts[s, b]
        for h in range(heads):
            strength = said[heads * width + h]
            highest = -np.inf
            for k in range(sparsity):
                highest = max(highest, strength * cosines[h, k])
            total = strength * 0
            for k in range(sparsity):
                now_rows[h, k] = found_rows[h, k]
                cells.live[b] = max(cells.live[b], found_rows[h, k] + 1)
                parts[h, k] = math.exp(strength * cosines[h, k] - highest)
                total += parts[h, k]
            for k in range(sparsity):
                parts[h, k] /= total
            ahead, behind = slice(sparsity, 2 * sparsity), slice(2 * sparsity, 3 * sparsity)
            paths = history.paths[s, b, h]
            follow(
                cells.next_rows[b], cells.next_links[b], was_rows[h], was_weights[h],
                now_rows[h, ahead], parts[h, ahead], paths[:, :sparsity], rows, values,
            )  # fmt: skip
            follow(
                cells.prev_rows[b], cells.prev_links[b], was_rows[h], was_weights[h],
                now_rows[h, behind], parts[h, behind], paths[:, sparsity:], rows, values,
            )  # fmt: skip
            out = reads[b, h * width : (h + 1) * width]
            out[:] = 0
            for d in range(depth):
                mode = 1 if d < sparsity else (2 if d < 2 * sparsity else 0)
                weight = modes[3 * h + mode] * parts[h, d]
                history.weights[s, b, h, d] = weight
                found = memory[now_rows[h, d]]
                for w in range(width):
                    out[w] += weight * found[w]
        note_accesses(
            cells.after[b], cells.before[b], said, recycled, was_rows, was_weights, now_rows,
            history.weights[s, b],
        )  # fmt: skip


# ---------------------------------------------------------------------- backward


@jit
def backward_read(memory, gradient, modes, rows, parts, cosines, paths, on_read, on_weights, out, before):
    """From gradients of one head's read and weights to those of its fields, of rows and of the last weights.

    Args:
        modes: ``[3]``, the head's read modes.
        rows, parts, on_weights: ``[D]``; ``cosines[K]``; ``paths[D, 2 K]``; ``on_read[W]``.
        out: where the gradient of the modes goes; the key; the strength; where their gradients go.
        before: ``[D]``, receives the gradient of the weights of the read before.
    """
    depth, width = len(rows), memory.shape[1]
    sparsity = depth // 3
    on_modes, key, strength, on_key, on_strength = out
    totals = np.empty(depth, memory.dtype)
    for m in range(3):
        on_modes[m] = 0
    for d in range(depth):
        mode = 1 if d < sparsity else (2 if d < 2 * sparsity else 0)
        row, grad_row, total = memory[rows[d]], gradient[rows[d]], on_weights[d]
        weight = modes[mode] * parts[d]
        for w in range(width):
            total += on_read[w] * row[w]
        for w in range(width):
            grad_row[w] += weight * on_read[w]
        on_modes[mode] += parts[d] * total
        totals[d] = modes[mode] * total
    mean = on_modes[0] * modes[0] + on_modes[1] * modes[1] + on_modes[2] * modes[2]
    for m in range(3):
        on_modes[m] = modes[m] * (on_modes[m] - mean)
    for d in range(depth):
        before[d] = 0
        for j in range(2 * sparsity):
            before[d] += paths[d, j] * totals[sparsity + j]

    mean = strength * 0
    for k in range(sparsity):
        mean += parts[k] * totals[k]
    per_key = inverse_norm(key)
    shrink = grad_strength = strength * 0
    on_key[:] = 0
    for k in range(sparsity):
        score = parts[k] * (totals[k] - mean)
        grad_strength += score * cosines[k]
        share = score * strength
        row, grad_row = memory[rows[k]], gradient[rows[k]]
        per_row = inverse_norm(row)
        shrink += share * cosines[k]
        along, across = share * per_key * per_row, share * cosines[k] * per_row * per_row
        for w in range(width):
            on_key[w] += along * row[w]
            grad_row[w] += along * key[w] - across * row[w]
    for w in range(width):
        on_key[w] -= shrink * per_key * per_key * key[w]
    on_strength[0] = grad_strength * (1 - math.exp(-strength))


@jit
def backward(
    s, before_rows, before_weights, cells, gradient, history, on_reads, on_weights, out, grad_before
):
    """Gradients of step ``s``; arguments as in ``kernels.sam.compiled.backward``. Undoes nothing."""
    _, _, heads, depth = history.rows.shape
    width = cells.memory.shape[2]
    through = np.empty((heads, depth), cells.memory.dtype)
    for b in range(len(out)):
        if history.recycled[s, b, 0] < 0:
            out[b] = 0
            grad_before[b] = on_weights[b]
            continue
        said, fields = history.said[s, b, 3 * heads :], out[b, 3 * heads :]
        for h in range(heads):
            strength_at = heads * width + h
            targets = (
                out[b, 3 * h : 3 * h + 3],
                said[h * width : (h + 1) * width],
                said[strength_at],
                fields[h * width : (h + 1) * width],
                fields[strength_at : strength_at + 1],
            )
            backward_read(
                cells.memory[b], gradient[b], history.said[s, b, 3 * h : 3 * h + 3],
                history.rows[s, b, h], history.parts[s, b, h], history.cosines[s, b, h],
                history.paths[s, b, h], on_reads[b, h * width : (h + 1) * width], on_weights[b, h],
                targets, through[h],
            )  # fmt: skip
        backward_write(
            gradient[b],
            said,
            history.recycled[s, b],
            before_rows[b],
            before_weights[b],
            fields,
            grad_before[b],
        )
        for h in range(heads):
            for d in range(depth):
                grad_before[b, h, d] += through[h, d]


# ---------------------------------------------------------------------- back to the start


@jit
def forget(steps, cells, gradient, history, start_live):
    """After so many steps, all undone, bring everything but the rows back: only what the steps used."""
    _, batch, heads, depth = history.rows.shape
    for b in range(batch):
        after, before = cells.after[b], cells.before[b]
        after[len(after) - 2 :] = 0
        before[len(before) - 2 :] = 0
        cells.last_rows[b] = 0
        cells.last_links[b] = 0
        for s in range(steps):
            if history.recycled[s, b, 0] < 0:
                continue
            for h in range(heads):
                for d in range(-1, depth):
                    i = history.recycled[s, b, h] if d < 0 else history.rows[s, b, h, d]
                    forget_row(after, before, i)
                    cells.next_rows[b, i] = 0
                    cells.next_links[b, i] = 0
                    cells.prev_rows[b, i] = 0
                    cells.prev_links[b, i] = 0
                    if gradient.shape[1] > 0:
                        gradient[b, i] = 0
        cells.live[b] = start_live


@jit
def forget_links(cells):
    """Unlink all rows in use."""
    for b in range(len(cells.live)):
        used = cells.live[b]
        cells.next_rows[b, :used] = 0
        cells.next_links[b, :used] = 0
        cells.prev_rows[b, :used] = 0
        cells.prev_links[b, :used] = 0
        cells.last_rows[b] = 0
        cells.last_links[b] = 0


@jit
def copy_links(source, target):
    """Copy the links of the rows in use."""
    for b in range(len(source.live)):
        used = source.live[b]
        target.next_rows[b, :used] = source.next_rows[b, :used]
        target.next_links[b, :used] = source.next_links[b, :used]
        target.prev_rows[b, :used] = source.prev_rows[b, :used]
        target.prev_links[b, :used] = source.prev_links[b, :used]
        target.last_rows[b] = source.last_rows[b]
        target.last_links[b] = source.last_links[b]
