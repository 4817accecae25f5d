# mypy: disable-error-code="no-untyped-def"
# Kernels are not Python functions: their parameters are pointers and compile-time constants.
"""A step of a Neural Turing Machine's memory on a GPU: one kernel forward, one backward, written by hand.

The equations are those of ``naive.py``, the backward pass that of ``compiled.py``. A program does one row of
the batch: it goes over the memory once to compare, and once to read and write, a tile of slots at a time (the
second time from the cache); between those the weights of all heads lie in registers. Torch makes some forty
operations of a step and twice as many of its backward pass, and a GPU is idle while they are launched.

To shift weights in a circle, numbers have to go from thread to thread: they are written to global memory and,
behind a barrier of the program, read again elsewhere. That needs no ``tl.gather``, which early releases of
triton lack, and what is written there is kept for the backward pass anyway.

Sizes are compiled in: the first call with new ones takes seconds. See ``gpu.py`` for who calls.
"""

# No `from __future__ import annotations`: triton's interpreter reads the annotations.

from typing import Any

from mannlab.kernels.bag.triton_kernels import constexpr, tl, triton

_jit: Any = triton.jit if triton is not None else lambda function: function


@_jit
def _sigmoid(x):
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@_jit
def _tanh(x):
    # Near zero a quotient of differences would lose digits that a key's direction needs.
    z = x * x
    near = 62 / 2835 - z * (1382 / 155925)
    near = x * (1.0 - z * (1 / 3 - z * (2 / 15 - z * (17 / 315 - z * near))))
    small = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - small) / (1.0 + small)
    return tl.where(z < 0.01, near, tl.where(x < 0, -far, far))


@_jit
def _softplus(x):
    small = tl.exp(-tl.abs(x))
    # What 1 + small forgets of it, its logarithm is given back in proportion.
    total = 1.0 + small
    kept = total - 1.0
    log = tl.where(kept > 0, tl.log(total) * (small / tl.where(kept > 0, kept, 1.0)), small)
    return tl.maximum(x, 0.0) + log


@_jit
def _get(base, at, mask, number: constexpr):
    """What is there in the type of sums; zeros where nothing is, or outside the mask."""
    if base is None:
        found = tl.zeros(at.shape, number)
    else:
        found = tl.load(base + at, mask=mask, other=0.0).to(number)
    return found


@_jit
def _softmax(scores, inside):
    """Along the second axis, over what is inside."""
    scores = tl.where(inside, scores, float("-inf"))
    powers = tl.exp(scores - tl.max(scores, 1)[:, None])
    return powers / tl.sum(powers, 1)[:, None]


@_jit
def _chances(said, h, S: constexpr, MOVES: constexpr, real, number: constexpr):
    """The distributions over moves ``[h, MOVES]`` of some heads; ``said`` at the field."""
    s = tl.arange(0, MOVES)
    inside = (s < S)[None, :]
    raw = _get(said, h[:, None] * S + s[None, :], real[:, None] & inside, number)
    return _softmax(raw, inside)


@_jit
def _column(tile, j):
    """Column j of a tile that lies in registers."""
    s = tl.arange(0, tile.shape[1])
    return tl.sum(tl.where((s == j)[None, :], tile, 0.0), 1)


@_jit
def _around(n, move, N: constexpr):
    """The slot that lies ``move`` further, in a circle; for moves of less than N."""
    there = n + move
    there = tl.where(there < 0, there + N, there)
    return tl.where(there >= N, there - N, there)


@_jit
def _shifted(gated, chances, h, n, mask, S: constexpr, N: constexpr, number: constexpr):
    """Equation 8 for some heads, from ``gated[H, N]`` in global memory."""
    total = tl.zeros(mask.shape, number)
    for j in range(S):
        source = _around(n, S // 2 - j, N)
        part = _get(gated, h[:, None] * N + source[None, :], mask, number)
        total += _column(chances, j)[:, None] * part
    return total


@_jit
def _row_forward(
    said,
    memory,
    weights,
    reads,
    new_memory,
    new_weights,
    history,
    NORM: constexpr,
    SMALLEST: constexpr,
    N: constexpr,
    W: constexpr,
    H: constexpr,
    V: constexpr,
    S: constexpr,
    TILE: constexpr,
    COLUMNS: constexpr,
    SLOTS: constexpr,
    HEADS: constexpr,
    ALL: constexpr,
    MOVES: constexpr,
):
    """A row of the batch; pointers are at the row."""
    number: constexpr = history.dtype.element_ty
    R: constexpr = H - V
    similar, content, gated, scales = history, history + H * N, history + 2 * H * N, history + 3 * H * N
    strengths, gates, moves = said + H * W, said + H * W + H, said + H * W + 2 * H
    exponents = moves + H * S
    erases, adds = exponents + H, exponents + H + V * W
    w = tl.arange(0, COLUMNS)
    wide = w < W
    # Compare every slot with every key.
    for start in range(0, N, TILE):
        n = start + tl.arange(0, TILE)
        rows = _get(memory, n[:, None] * W + w[None, :], (n < N)[:, None] & wide[None, :], number)
        scale = tl.rsqrt(tl.sum(rows * rows, 1) + NORM)
        tl.store(scales + n, scale, mask=n < N)
        for h in range(H):
            key = _tanh(_get(said + h * W, w, wide, number))
            size = tl.rsqrt(tl.sum(key * key, 0) + NORM)
            tl.store(similar + h * N + n, tl.sum(rows * key[None, :], 1) * scale * size, mask=n < N)
    tl.debug_barrier()
    # Equations 5 to 9, over all slots at once.
    i = tl.arange(0, SLOTS)
    for first in range(0, H, HEADS):
        h = first + tl.arange(0, HEADS)
        real = h < H
        mask = real[:, None] & (i < N)[None, :]
        at = h[:, None] * N + i[None, :]
        strength = _softplus(_get(strengths, h, real, number))
        gate = _sigmoid(_get(gates, h, real, number))[:, None]
        chosen = _softmax(_get(similar, at, mask, number) * strength[:, None], (i < N)[None, :])
        tl.store(content + at, chosen, mask=mask)
        tl.store(gated + at, gate * chosen + (1.0 - gate) * _get(weights, at, mask, number), mask=mask)
    tl.debug_barrier()
    for first in range(0, H, HEADS):
        h = first + tl.arange(0, HEADS)
        real = h < H
        mask = real[:, None] & (i < N)[None, :]
        chances = _chances(moves, h, S, MOVES, real, number)
        moved = _shifted(gated, chances, h, i, mask, S, N, number)
        exponent = 1.0 + _softplus(_get(exponents, h, real, number))
        focus = _softmax(tl.log(tl.maximum(moved, SMALLEST)) * exponent[:, None], (i < N)[None, :])
        tl.store(new_weights + h[:, None] * N + i[None, :], focus, mask=mask)
    tl.debug_barrier()
    # Read, and write.
    every = tl.arange(0, ALL)
    total = tl.zeros([ALL, COLUMNS], number)
    for start in range(0, N, TILE):
        n = start + tl.arange(0, TILE)
        there, mask = n[:, None] * W + w[None, :], (n < N)[:, None] & wide[None, :]
        rows = _get(memory, there, mask, number)
        for h in range(R):
            focus = _get(new_weights + h * N, n, n < N, number)
            part = tl.sum(rows * focus[:, None], 0)
            total += tl.where((every == h)[:, None], part[None, :], 0.0)
        for v in range(V):
            focus = _get(new_weights + (R + v) * N, n, n < N, number)
            erase = _sigmoid(_get(erases + v * W, w, wide, number))
            rows = rows * (1.0 - focus[:, None] * erase[None, :])
        for v in range(V):
            focus = _get(new_weights + (R + v) * N, n, n < N, number)
            add = _tanh(_get(adds + v * W, w, wide, number))
            rows = rows + focus[:, None] * add[None, :]
        tl.store(new_memory + there, rows, mask=mask)
    tl.store(reads + every[:, None] * W + w[None, :], total, mask=(every < R)[:, None] & wide[None, :])


@_jit
def _copy(source, target, COUNT: constexpr, BLOCK: constexpr):
    """``COUNT`` numbers; zeros if there is no source."""
    for start in range(0, COUNT, BLOCK):
        n = start + tl.arange(0, BLOCK)
        tl.store(target + n, _get(source, n, n < COUNT, target.dtype.element_ty), mask=n < COUNT)


@_jit
def forward(
    said,
    memory,
    weights,
    valid,
    reads,
    new_memory,
    new_weights,
    history,
    said_stride,
    memory_stride,
    weights_stride,
    valid_stride,
    NORM: constexpr,
    SMALLEST: constexpr,
    N: constexpr,
    W: constexpr,
    H: constexpr,
    V: constexpr,
    S: constexpr,
    TILE: constexpr,
    COLUMNS: constexpr,
    SLOTS: constexpr,
    HEADS: constexpr,
    ALL: constexpr,
    MOVES: constexpr,
):
    """A program for each row of the batch.

    ``said[B, I]``, ``memory[B, N, W]`` and ``weights[B, H, N]``, whose rows may lie any distance apart, and
    ``valid[B]`` or None, to ``reads[B, R W]`` (zeros for padding), the next memory and weights, and
    ``history[B, 3 H + 1, N]``: similarities, content weights, gated weights and one over each slot's norm.
    """
    b = tl.program_id(0).to(tl.int64)
    said += b * said_stride
    memory += b * memory_stride
    weights += b * weights_stride
    reads += b * ((H - V) * W)
    new_memory += b * (N * W)
    new_weights += b * (H * N)
    history += b * ((3 * H + 1) * N)
    real = True
    if valid is not None:
        real = tl.load(valid + b * valid_stride) != 0
    if real:
        _row_forward(
            said,
            memory,
            weights,
            reads,
            new_memory,
            new_weights,
            history,
            NORM,
            SMALLEST,
            N,
            W,
            H,
            V,
            S,
            TILE,
            COLUMNS,
            SLOTS,
            HEADS,
            ALL,
            MOVES,
        )
    else:
        _copy(memory, new_memory, N * W, 1024)
        _copy(weights, new_weights, H * N, 1024)
        _copy(None, reads, (H - V) * W, 128)


@_jit
def _row_backward(
    said,
    memory,
    weights,
    new_weights,
    history,
    on_reads,
    on_new_memory,
    on_new_weights,
    on_said,
    on_memory,
    on_weights,
    scratch,
    NORM: constexpr,
    SMALLEST: constexpr,
    N: constexpr,
    W: constexpr,
    H: constexpr,
    V: constexpr,
    S: constexpr,
    TILE: constexpr,
    COLUMNS: constexpr,
    SLOTS: constexpr,
    HEADS: constexpr,
    ALL: constexpr,
    MOVES: constexpr,
):
    """A row of the batch; pointers are at the row."""
    number: constexpr = history.dtype.element_ty
    R: constexpr = H - V
    similar, content, gated, scales = history, history + H * N, history + 2 * H * N, history + 3 * H * N
    to_gates, to_moves = H * W + H, H * W + 2 * H
    to_exponents = to_moves + H * S
    to_erases, to_adds = to_exponents + H, to_exponents + H + V * W
    # First the gradient of the new weights, then what each slot has in that of the keys.
    on_focus, on_moved = scratch, scratch + H * N
    w = tl.arange(0, COLUMNS)
    wide = w < W
    every = tl.arange(0, ALL)
    # Back through reading and writing.
    on_erase, on_add = tl.zeros([ALL, COLUMNS], number), tl.zeros([ALL, COLUMNS], number)
    for start in range(0, N, TILE):
        n = start + tl.arange(0, TILE)
        there, mask = n[:, None] * W + w[None, :], (n < N)[:, None] & wide[None, :]
        rows = _get(memory, there, mask, number)
        after = _get(on_new_memory, there, mask, number)
        for h in range(R):
            part = _get(on_reads, h * W + w, wide, number)
            on = tl.sum(rows * part[None, :], 1) + _get(on_new_weights, h * N + n, n < N, number)
            tl.store(on_focus + h * N + n, on, mask=n < N)
        for v in range(V):
            focus = _get(new_weights + (R + v) * N, n, n < N, number)
            erase = _sigmoid(_get(said + to_erases + v * W, w, wide, number))
            add = _tanh(_get(said + to_adds + v * W, w, wide, number))
            product = after * rows
            if V > 1:
                for u in range(V):
                    other = _get(new_weights + (R + u) * N, n, n < N, number)
                    its_erase = _sigmoid(_get(said + to_erases + u * W, w, wide, number))
                    product *= tl.where(u == v, 1.0, 1.0 - other[:, None] * its_erase[None, :])
            on = tl.sum(after * add[None, :] - product * erase[None, :], 1)
            on += _get(on_new_weights, (R + v) * N + n, n < N, number)
            tl.store(on_focus + (R + v) * N + n, on, mask=n < N)
            mine = (every == v)[:, None]
            on_erase -= tl.where(mine, tl.sum(product * focus[:, None], 0)[None, :], 0.0)
            on_add += tl.where(mine, tl.sum(after * focus[:, None], 0)[None, :], 0.0)
    block = every[:, None] * W + w[None, :]
    writing = (every < V)[:, None] & wide[None, :]
    erases = _sigmoid(_get(said + to_erases, block, writing, number))
    adds = _tanh(_get(said + to_adds, block, writing, number))
    tl.store(on_said + to_erases + block, on_erase * erases * (1.0 - erases), mask=writing)
    tl.store(on_said + to_adds + block, on_add * (1.0 - adds * adds), mask=writing)
    tl.debug_barrier()
    # Back through sharpening.
    i = tl.arange(0, SLOTS)
    for first in range(0, H, HEADS):
        h = first + tl.arange(0, HEADS)
        real = h < H
        mask = real[:, None] & (i < N)[None, :]
        at = h[:, None] * N + i[None, :]
        chances = _chances(said + to_moves, h, S, MOVES, real, number)
        moved = _shifted(gated, chances, h, i, mask, S, N, number)
        focus = _get(new_weights, at, mask, number)
        on = _get(on_focus, at, mask, number)
        slope = focus * (on - tl.sum(focus * on, 1)[:, None])
        raw = _get(said + to_exponents, h, real, number)
        on_exponent = tl.sum(slope * tl.log(tl.maximum(moved, SMALLEST)), 1)
        tl.store(on_said + to_exponents + h, on_exponent * _sigmoid(raw), mask=real)
        slope = slope * (1.0 + _softplus(raw))[:, None] / tl.maximum(moved, SMALLEST)
        tl.store(on_moved + at, tl.where(moved >= SMALLEST, slope, 0.0), mask=mask)
    tl.debug_barrier()
    # Back through shift, gate and content.
    for first in range(0, H, HEADS):
        h = first + tl.arange(0, HEADS)
        real = h < H
        mask = real[:, None] & (i < N)[None, :]
        at = h[:, None] * N + i[None, :]
        chances = _chances(said + to_moves, h, S, MOVES, real, number)
        mixed = _get(gated, at, mask, number)
        fresh = tl.zeros(mask.shape, number)
        on_chances = tl.zeros(chances.shape, number)
        s = tl.arange(0, MOVES)
        for j in range(S):
            source = _around(i, j - S // 2, N)
            part = _get(on_moved, h[:, None] * N + source[None, :], mask, number)
            fresh += _column(chances, j)[:, None] * part
            on_chances += tl.where((s == j)[None, :], tl.sum(part * mixed, 1)[:, None], 0.0)
        mean = tl.sum(chances * on_chances, 1)[:, None]
        spots = h[:, None] * S + s[None, :]
        slopes = chances * (on_chances - mean)
        tl.store(on_said + to_moves + spots, slopes, mask=real[:, None] & (s < S)[None, :])
        chosen, previous = _get(content, at, mask, number), _get(weights, at, mask, number)
        gate = _sigmoid(_get(said + to_gates, h, real, number))
        on_gate = tl.sum(fresh * (chosen - previous), 1)
        tl.store(on_said + to_gates + h, on_gate * gate * (1.0 - gate), mask=real)
        tl.store(on_weights + at, (1.0 - gate)[:, None] * fresh, mask=mask)
        fresh = gate[:, None] * chosen * (fresh - tl.sum(chosen * fresh, 1)[:, None])
        raw = _get(said + H * W, h, real, number)
        on_strength = tl.sum(fresh * _get(similar, at, mask, number), 1)
        tl.store(on_said + H * W + h, on_strength * _sigmoid(raw), mask=real)
        keys_at = h[:, None] * W + w[None, :]
        keys = _tanh(_get(said, keys_at, real[:, None] & wide[None, :], number))
        size = tl.rsqrt(tl.sum(keys * keys, 1) + NORM)
        scale = _get(scales, i, i < N, number)
        parts = (_softplus(raw) * size)[:, None] * fresh * scale[None, :]
        tl.store(on_focus + at, parts, mask=mask)
    tl.debug_barrier()
    # All that a slot has part in.
    on_keys = tl.zeros([ALL, COLUMNS], number)
    for start in range(0, N, TILE):
        n = start + tl.arange(0, TILE)
        there, mask = n[:, None] * W + w[None, :], (n < N)[:, None] & wide[None, :]
        rows = _get(memory, there, mask, number)
        after = _get(on_new_memory, there, mask, number)
        for v in range(V):
            focus = _get(new_weights + (R + v) * N, n, n < N, number)
            erase = _sigmoid(_get(said + to_erases + v * W, w, wide, number))
            after = after * (1.0 - focus[:, None] * erase[None, :])
        for h in range(R):
            focus = _get(new_weights + h * N, n, n < N, number)
            after = after + focus[:, None] * _get(on_reads, h * W + w, wide, number)[None, :]
        toward = tl.zeros([TILE, COLUMNS], number)
        for h in range(H):
            part = _get(on_focus + h * N, n, n < N, number)
            toward += part[:, None] * _tanh(_get(said + h * W, w, wide, number))[None, :]
            mine = tl.sum(part[:, None] * rows, 0)
            on_keys += tl.where((every == h)[:, None], mine[None, :], 0.0)
        # What changes only the length of a row changes no cosine.
        scale = _get(scales, n, n < N, number)
        along = tl.sum(rows * toward, 1) * scale * scale
        tl.store(on_memory + there, after + toward - rows * along[:, None], mask=mask)
    speaking = (every < H)[:, None] & wide[None, :]
    all_keys = _tanh(_get(said, block, speaking, number))
    shares = tl.sum(all_keys * on_keys, 1) / (tl.sum(all_keys * all_keys, 1) + NORM)
    on_keys = (on_keys - all_keys * shares[:, None]) * (1.0 - all_keys * all_keys)
    tl.store(on_said + block, on_keys, mask=speaking)


@_jit
def backward(
    said,
    memory,
    weights,
    valid,
    new_weights,
    history,
    on_reads,
    on_new_memory,
    on_new_weights,
    on_said,
    on_memory,
    on_weights,
    scratch,
    said_stride,
    memory_stride,
    weights_stride,
    valid_stride,
    NORM: constexpr,
    SMALLEST: constexpr,
    N: constexpr,
    W: constexpr,
    H: constexpr,
    V: constexpr,
    S: constexpr,
    TILE: constexpr,
    COLUMNS: constexpr,
    SLOTS: constexpr,
    HEADS: constexpr,
    ALL: constexpr,
    MOVES: constexpr,
):
    """A program for each row of the batch.

    From the gradients of what :func:`forward` gave (None: zeros) to those of the interface,
    ``on_said[B, I]``, and of memory and weights before. ``scratch[B, 2 H, N]`` is for the program's own use.
    """
    b = tl.program_id(0).to(tl.int64)
    fields: constexpr = H * (W + S + 3) + 2 * V * W
    said += b * said_stride
    memory += b * memory_stride
    weights += b * weights_stride
    new_weights += b * (H * N)
    history += b * ((3 * H + 1) * N)
    if on_reads is not None:
        on_reads += b * ((H - V) * W)
    if on_new_memory is not None:
        on_new_memory += b * (N * W)
    if on_new_weights is not None:
        on_new_weights += b * (H * N)
    on_said += b * fields
    on_memory += b * (N * W)
    on_weights += b * (H * N)
    scratch += b * (2 * H * N)
    real = True
    if valid is not None:
        real = tl.load(valid + b * valid_stride) != 0
    if real:
        _row_backward(
            said,
            memory,
            weights,
            new_weights,
            history,
            on_reads,
            on_new_memory,
            on_new_weights,
            on_said,
            on_memory,
            on_weights,
            scratch,
            NORM,
            SMALLEST,
            N,
            W,
            H,
            V,
            S,
            TILE,
            COLUMNS,
            SLOTS,
            HEADS,
            ALL,
            MOVES,
        )
    else:
        _copy(on_new_memory, on_memory, N * W, 1024)
        _copy(on_new_weights, on_weights, H * N, 1024)
        _copy(None, on_said, fields, 128)
