# mypy: disable-error-code="no-untyped-def"
# Kernels are not Python functions: their parameters are pointers and compile-time constants.
"""The weighted sum of rows of a large table, on a GPU: forward, both gradients, and a sparse Adam step.

The memory of Lample et al. 2019, "Large Memory Layers with Product Keys" (arXiv 1907.05242), reads ``K``
of its ``N`` rows for each token. There is next to no arithmetic in it: every kernel here is meant to be as
fast as the machine can copy the bytes. So accesses are 16 bytes for each thread, several rows are in
flight at once, and nothing is written that the next kernel would only read again.

Tensors are contiguous, in row-major order. ``values[N, D]`` and gradients are float32, bfloat16 or float16;
sums are made in float32. ``rows[T, K]`` is int32 or int64. **Rows are not checked**: one outside the table
reads or writes memory that is not its own.

``K`` and ``D`` are compiled in: the first call with new ones takes seconds. With ``TRITON_INTERPRET=1`` in
the environment before this module is imported, the same functions run on the CPU, slowly, for tests.
"""

# No `from __future__ import annotations`: triton's interpreter reads the annotations, and its early
# releases do not recognise a constexpr in a string.

import importlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

# By name, so that type checkers say the same with and without triton installed.
triton: Any
tl: Any
try:
    triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")
except ImportError:
    triton = tl = None

if TYPE_CHECKING:
    constexpr = Any
else:
    constexpr = tl.constexpr if tl is not None else Any

# What a warp reads in one instruction, 16 bytes for each of its threads.
WARP_BYTES = 512
# How much of a row one program takes: four warps, all side by side, so that sums over rows stay in a thread.
PROGRAM_BYTES = 4 * WARP_BYTES
# Rows whose loads a program issues before it uses the first.
ROWS_IN_FLIGHT = 8
# Below this many programs a launch does not fill a GPU of 132 multiprocessors.
PROGRAMS_WANTED = 528
# Bytes in flight that hide the memory's latency on the whole of an H200 (4.8 TB/s, about a microsecond).
BYTES_IN_FLIGHT = 8 << 20
# How many elements of a row the per-row kernels (the sorted gradient and Adam) hold at a time.
ROW_CHUNK = 512


def available() -> bool:
    """Whether the kernels can run: triton, and a CUDA device or triton's interpreter."""
    return triton is not None and (interpreted() or torch.cuda.is_available())


def interpreted() -> bool:
    """Whether the kernels were made for triton's interpreter, which takes tensors of any device."""
    return triton is not None and not isinstance(_forward_kernel, triton.runtime.JITFunction)


class ReverseIndex(NamedTuple):
    """Which entries of ``rows[T, K]`` name each row of the table.

    Attributes:
        order: ``int64[T * K]``, the entries (``t * K + k``) sorted by the row they name; those of one row
            in ascending order.
        starts: ``int64[U + 1]``; the entries of unique row ``u`` are ``order[starts[u] : starts[u + 1]]``.
        row_ids: ``[U]``, the unique rows in ascending order, of the type of ``rows``; -1 for padding.
    """

    order: Tensor
    starts: Tensor
    row_ids: Tensor


def reverse_index(rows: Tensor, exact: bool = True) -> ReverseIndex:
    """The reverse index of ``rows[T, K]``. int32 rows sort in about half the time.

    Args:
        exact: cut the result to the ``U`` unique rows. Their number has to come to the host, which **waits
            for the device**. If False nothing waits (and CUDA graphs can capture it): ``U = T * K``, where
            the places that are not used have ``row_ids`` -1 and no entries. The Adam steps pass over those;
            the sorted gradient writes zeros there.
    """
    entries = rows.numel()
    if entries >= 2**31:
        raise ValueError(f"too many entries: {entries}, where fewer than 2**31 are possible")
    ordered, order = rows.flatten().sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    unique = is_first.cumsum(0) - 1
    # Entries that are not the first of their row all write the same into a last, spare, place.
    place = torch.where(is_first, unique, entries)
    position = torch.arange(entries, device=rows.device)
    starts = torch.full((entries + 1,), entries, device=rows.device)
    starts.scatter_(0, place, torch.where(is_first, position, entries))
    row_ids = ordered.new_full((entries + 1,), -1)
    row_ids.scatter_(0, place, torch.where(is_first, ordered, -1))
    count = int(unique[-1]) + 1 if exact and entries else entries
    return ReverseIndex(order, starts[: count + 1], row_ids[:count])


# ------------------------------------------------------------------------------ functions


def forward(values: Tensor, rows: Tensor, weights: Tensor, out: Tensor | None = None) -> Tensor:
    """``out[t] = sum_k weights[t, k] * values[rows[t, k]]``, from ``values[N, D]`` to ``[T, D]``.

    Args:
        out: where to write, of any floating type; by default new, of the type of ``values``.
    """
    _check(values, rows, weights, out)
    (bags, per_bag), width = rows.shape, values.shape[1]
    out = values.new_empty(bags, width) if out is None else out
    _expect(weights, bags, per_bag)
    _expect(out, bags, width)
    if rows.numel() == 0 or width == 0:
        return out.zero_()
    tile = bag_tile(bags, per_bag, width, values.element_size())
    with _on(values):
        _forward_kernel[(bags * tile.blocks,)](
            out, values, rows, weights, per_bag, width, *tile.sizes, **_options(tile.warps)
        )
    return out


def weight_gradient(values: Tensor, rows: Tensor, grad_out: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient of the weights, ``[T, K]``: ``values[rows[t, k]]`` times ``grad_out[t]``, summed.

    Args:
        grad_out: ``[T, D]``.
        out: where to write, of any floating type; by default new, float32.
    """
    _check(values, rows, grad_out, out)
    (bags, per_bag), width = rows.shape, values.shape[1]
    out = values.new_empty(bags, per_bag, dtype=torch.float32) if out is None else out
    _expect(grad_out, bags, width)
    _expect(out, bags, per_bag)
    if rows.numel() == 0 or width == 0:
        return out.zero_()
    tile = dot_tile(per_bag, width, values.element_size())
    with _on(values):
        _weight_gradient_kernel[(bags * tile.blocks,)](
            out, values, rows, grad_out, per_bag, width, *tile.sizes, **_options(tile.warps)
        )
    return out


def value_gradient_atomic(grad_out: Tensor, rows: Tensor, weights: Tensor, into: Tensor) -> Tensor:
    """Add the gradient of the values to ``into``, ``float32[N, D]``, by atomic additions; returns ``into``.

    Needs no index, but the order of the additions, and with it the last bits, differ from run to run.

    Args:
        grad_out: ``[T, D]``.
    """
    _check(grad_out, rows, weights, into)
    if into.dtype != torch.float32:
        raise TypeError(f"gradients are added in float32, not {into.dtype}")
    (bags, per_bag), width = rows.shape, grad_out.shape[1]
    _expect(weights, bags, per_bag)
    _expect(grad_out, bags, width)
    _expect(into, into.shape[0], width)
    if rows.numel() and width:
        tile = bag_tile(bags, per_bag, width, into.element_size())
        with _on(into):
            _atomic_kernel[(bags * tile.blocks,)](
                into, grad_out, rows, weights, per_bag, width, *tile.sizes, **_options(tile.warps)
            )
    return into


def value_gradient_sorted(
    grad_out: Tensor,
    order: Tensor,
    starts: Tensor,
    row_ids: Tensor,
    weights: Tensor,
    out: Tensor | None = None,
    *,
    sources: Tensor | None = None,
) -> Tensor:
    """The gradient of each unique row, ``[U, D]``, in the order of ``row_ids``: the same bits at every call.

    Args:
        grad_out: ``[T, D]``.
        order, starts, row_ids: see :class:`ReverseIndex`.
        weights: ``[T, K]``.
        sources: ``[E]``, which row of ``grad_out`` belongs to each entry, for entries of several reads of
            one table joined; ``weights`` are ``[E]`` then. By default entry ``e`` is of bag ``e // K``.
        out: where to write, of any floating type; by default new, float32.
    """
    _check(grad_out, order, starts, row_ids, weights, out, sources)
    unique, width = row_ids.numel(), grad_out.shape[1]
    out = grad_out.new_empty(unique, width, dtype=torch.float32) if out is None else out
    per_bag = _per_bag(grad_out, order, starts, row_ids, weights, sources)
    _expect(out, unique, width)
    if out.numel():
        chunk, warps = row_chunk(width)
        blocks = triton.cdiv(width, chunk)
        with _on(grad_out):
            _sorted_kernel[(unique * blocks,)](
                out,
                grad_out,
                order,
                starts,
                weights,
                sources,
                per_bag,
                width,
                blocks,
                ROWS_IN_FLIGHT,
                chunk,
                **_options(warps),
            )
    return out


def squared_norms(
    grad_out: Tensor,
    order: Tensor,
    starts: Tensor,
    row_ids: Tensor,
    weights: Tensor,
    *,
    sources: Tensor | None = None,
) -> Tensor:
    """The sum of squares of each row of :func:`value_gradient_sorted`, ``float32[U]``, without writing it."""
    _check(grad_out, order, starts, row_ids, weights, sources)
    out = grad_out.new_zeros(row_ids.numel(), dtype=torch.float32)
    per_bag = _per_bag(grad_out, order, starts, row_ids, weights, sources)
    if out.numel() and grad_out.numel():
        chunk, warps = row_chunk(grad_out.shape[1])
        with _on(grad_out):
            _squares_kernel[(out.numel(),)](
                out,
                grad_out,
                order,
                starts,
                weights,
                sources,
                per_bag,
                grad_out.shape[1],
                ROWS_IN_FLIGHT,
                chunk,
                **_options(warps),
            )
    return out


def adam_rows(
    values: Tensor,
    moment1: Tensor,
    moment2: Tensor,
    last_step: Tensor,
    row_ids: Tensor,
    grad: Tensor,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    """One step of Adam on some rows of ``values[N, D]``, in place.

    The moments of these rows become those of dense Adam: what it would have made of the steps since a row's
    last update, in which its gradient was zero, is caught up with here. Unlike it, a row does not move in
    those steps. With all rows in every step this is ``torch.optim.Adam``.

    Values in bfloat16 or float16 are rounded to nearest: an update below half their last bit is lost.

    Args:
        moment1, moment2: ``[N, D]``, of any floating type, zeros before the first step.
        last_step: ``[N]``, integers, the step of each row's last update, 0 before the first.
        row_ids: ``[U]``, the rows to update, each once; negative ones are passed over.
        grad: ``[U, D]``.
        step: the number of this step, from 1.
    """
    _check(values, moment1, moment2, last_step, row_ids, grad)
    _expect_moments(values, moment1, moment2, last_step)
    _expect(grad, row_ids.numel(), values.shape[1])
    if grad.numel():
        chunk, warps = row_chunk(values.shape[1])
        with _on(values):
            _adam_kernel[(row_ids.numel(),)](
                values,
                moment1,
                moment2,
                last_step,
                row_ids,
                grad,
                step,
                *_adam_numbers(step, lr, beta1, beta2, eps),
                values.shape[1],
                chunk,
                **_options(warps),
            )


def adam_from_factors(
    values: Tensor,
    moment1: Tensor,
    moment2: Tensor,
    last_step: Tensor,
    grad_out: Tensor,
    order: Tensor,
    starts: Tensor,
    row_ids: Tensor,
    weights: Tensor,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    *,
    sources: Tensor | None = None,
    scale: float = 1.0,
    clip: float = math.inf,
) -> None:
    """:func:`adam_rows` with :func:`value_gradient_sorted`'s gradient, which is never written to memory.

    That saves two of eight passes over the rows: a gradient's write and its read.

    Args:
        scale: multiplies the gradient (clipping by norm).
        clip: bounds each component of it, after that (clipping by value).
    """
    _check(values, moment1, moment2, last_step, grad_out, order, starts, row_ids, weights, sources)
    _expect_moments(values, moment1, moment2, last_step)
    per_bag = _per_bag(grad_out, order, starts, row_ids, weights, sources)
    _expect(grad_out, grad_out.shape[0], values.shape[1])
    if row_ids.numel() and values.numel():
        chunk, warps = row_chunk(values.shape[1])
        with _on(values):
            _adam_from_factors_kernel[(row_ids.numel(),)](
                values,
                moment1,
                moment2,
                last_step,
                grad_out,
                order,
                starts,
                row_ids,
                weights,
                sources,
                step,
                *_adam_numbers(step, lr, beta1, beta2, eps),
                float(scale),
                float(clip),
                per_bag,
                values.shape[1],
                ROWS_IN_FLIGHT,
                chunk,
                **_options(warps),
            )


# ------------------------------------------------------------------------------ launches


class Tile(NamedTuple):
    """How a bag is cut into programs.

    Attributes:
        blocks: programs for each bag.
        rows, width: of the tile that a program holds at a time; powers of two.
        warps: of each program.
    """

    blocks: int
    rows: int
    width: int
    warps: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.blocks, self.rows, self.width


def bag_tile(bags: int, per_bag: int, width: int, itemsize: int) -> Tile:
    """For kernels whose programs each go over all rows of a bag, in a block of the width."""
    row = _power(width)
    size = min(row, PROGRAM_BYTES // itemsize)
    while size * itemsize > WARP_BYTES and bags * triton.cdiv(width, size) < PROGRAMS_WANTED:
        size //= 2
    rows = ROWS_IN_FLIGHT
    while rows < 4 * ROWS_IN_FLIGHT and bags * width * itemsize * rows < BYTES_IN_FLIGHT:
        rows *= 2
    warps = max(1, size * itemsize // WARP_BYTES)
    return Tile(triton.cdiv(width, size), min(rows, _power(per_bag)), size, warps)


def dot_tile(per_bag: int, width: int, itemsize: int) -> Tile:
    """For dot products with rows: a warp alone, as sums across warps would have to wait for each other."""
    rows = min(_power(per_bag), ROWS_IN_FLIGHT)
    size = min(_power(width), WARP_BYTES // itemsize * (ROWS_IN_FLIGHT // rows))
    return Tile(triton.cdiv(per_bag, rows), rows, size, 1)


def row_chunk(width: int) -> tuple[int, int]:
    """The block of the width, and the warps, of a program for one row."""
    chunk = min(_power(width), ROW_CHUNK)
    return chunk, 2 if chunk >= 256 else 1


def _options(warps: int) -> dict[str, Any]:
    # Said out loud because triton 3.10 turns multiply-add off where it is not.
    return {"num_warps": warps, "enable_fp_fusion": True}


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _adam_numbers(step: int, lr: float, beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
    """What the kernels need, made in double precision: ``1 - beta2**step`` would lose digits in float32."""
    if step < 1:
        raise ValueError(f"steps are counted from 1, not {step}")
    # A beta of 0 has no logarithm; 2**-10000 is 0 as well.
    logs = (math.log2(beta) if beta > 0 else -1e4 for beta in (beta1, beta2))
    size = lr / (1 - beta1**step)
    scale = 1 / math.sqrt(1 - beta2**step)
    return (*logs, 1 - beta1, 1 - beta2, size, scale, eps)


def _check(*tensors: Tensor | None) -> None:
    if triton is None:
        raise RuntimeError("triton is not installed: these kernels cannot run (pip install triton)")
    given = [tensor for tensor in tensors if tensor is not None]
    device = given[0].device
    if device.type != "cuda" and not interpreted():
        raise RuntimeError(f"these kernels need tensors on a CUDA device, not on {device}")
    if any(tensor.device != device for tensor in given):
        raise ValueError(f"tensors on different devices: {[str(tensor.device) for tensor in given]}")
    if any(tensor.dtype == torch.float64 for tensor in given):
        raise TypeError("float64 is not supported: sums are made in float32")
    if not all(tensor.is_contiguous() for tensor in given):
        raise ValueError("tensors must be contiguous")


def _expect(tensor: Tensor, *shape: int) -> None:
    if tensor.shape != shape:
        raise ValueError(f"a tensor has shape {list(tensor.shape)} in place of {list(shape)}")


def _per_bag(
    grad_out: Tensor,
    order: Tensor,
    starts: Tensor,
    row_ids: Tensor,
    weights: Tensor,
    sources: Tensor | None,
) -> int:
    """K, or 0 where ``sources`` say which bag an entry is of."""
    _expect(order, weights.numel())
    _expect(starts, row_ids.numel() + 1)
    if sources is not None:
        _expect(sources, weights.numel())
        return 0
    _expect(grad_out, weights.shape[0], grad_out.shape[1])
    return weights.shape[1]


def _expect_moments(values: Tensor, moment1: Tensor, moment2: Tensor, last_step: Tensor) -> None:
    _expect(moment1, *values.shape)
    _expect(moment2, *values.shape)
    _expect(last_step, values.shape[0])


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whatever the tensors' own."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


# ------------------------------------------------------------------------------ kernels


def _jit(**options: Any) -> Callable[[Any], Any]:
    """``triton.jit``, or nothing where triton is missing."""
    return triton.jit(**options) if triton is not None else lambda function: function


@_jit()
def _load_rows(base, rows, there, d, D: constexpr, MASKED: constexpr):
    """``float32[R, C]``: ``rows[R]`` of ``base[*, D]`` in columns ``d[C]``; zeros where not ``there[R]``."""
    places = base + rows.to(tl.int64)[:, None] * D + d[None, :]
    if MASKED:  # noqa: SIM108 - decided when compiled
        tile = tl.load(places, mask=there[:, None] & (d < D)[None, :], other=0.0)
    else:
        tile = tl.load(places)
    return tile.to(tl.float32)


@_jit()
def _forward_kernel(
    out,
    values,
    rows,
    weights,
    K: constexpr,
    D: constexpr,
    BLOCKS: constexpr,
    BLOCK_K: constexpr,
    BLOCK_D: constexpr,
):
    """A program for each bag and block of the width. Neighbours share a bag, and find its rows cached."""
    masked: constexpr = (K % BLOCK_K != 0) or (D % BLOCK_D != 0)
    bag = (tl.program_id(0) // BLOCKS).to(tl.int64)
    d = (tl.program_id(0) % BLOCKS) * BLOCK_D + tl.arange(0, BLOCK_D)
    k = tl.arange(0, BLOCK_K)
    rows += bag * K
    weights += bag * K
    row = tl.load(rows + k, mask=k < K, other=0)
    weight = tl.load(weights + k, mask=k < K, other=0.0)
    total = tl.zeros([BLOCK_D], tl.float32)
    for begin in range(0, K, BLOCK_K):
        tile = _load_rows(values, row, begin + k < K, d, D, masked)
        # The next rows' numbers travel together with this tile: else each turn would wait twice.
        ahead = begin + BLOCK_K + k
        next_row = tl.load(rows + ahead, mask=ahead < K, other=0)
        next_weight = tl.load(weights + ahead, mask=ahead < K, other=0.0)
        total += tl.sum(tile * weight.to(tl.float32)[:, None], axis=0)
        row = next_row
        weight = next_weight
    tl.store(out + bag * D + d, total.to(out.dtype.element_ty), mask=d < D)


@_jit()
def _weight_gradient_kernel(
    out,
    values,
    rows,
    grad_out,
    K: constexpr,
    D: constexpr,
    BLOCKS: constexpr,
    BLOCK_K: constexpr,
    BLOCK_D: constexpr,
):
    """A program for each bag and block of its rows."""
    masked: constexpr = (K % BLOCK_K != 0) or (D % BLOCK_D != 0)
    bag = (tl.program_id(0) // BLOCKS).to(tl.int64)
    k = (tl.program_id(0) % BLOCKS) * BLOCK_K + tl.arange(0, BLOCK_K)
    there = k < K
    row = tl.load(rows + bag * K + k, mask=there, other=0)
    products = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for begin in range(0, D, BLOCK_D):
        d = begin + tl.arange(0, BLOCK_D)
        tile = _load_rows(values, row, there, d, D, masked)
        gradient = tl.load(grad_out + bag * D + d, mask=d < D, other=0.0)
        products += tile * gradient.to(tl.float32)[None, :]
    total = tl.sum(products, axis=1)
    tl.store(out + bag * K + k, total.to(out.dtype.element_ty), mask=there)


@_jit()
def _atomic_kernel(
    into,
    grad_out,
    rows,
    weights,
    K: constexpr,
    D: constexpr,
    BLOCKS: constexpr,
    BLOCK_K: constexpr,
    BLOCK_D: constexpr,
):
    """A program for each bag and block of the width: one read of the gradient, K additions."""
    bag = (tl.program_id(0) // BLOCKS).to(tl.int64)
    d = (tl.program_id(0) % BLOCKS) * BLOCK_D + tl.arange(0, BLOCK_D)
    gradient = tl.load(grad_out + bag * D + d, mask=d < D, other=0.0).to(tl.float32)
    for begin in range(0, K, BLOCK_K):
        k = begin + tl.arange(0, BLOCK_K)
        row = tl.load(rows + bag * K + k, mask=k < K, other=0)
        weight = tl.load(weights + bag * K + k, mask=k < K, other=0.0).to(tl.float32)
        places = into + row.to(tl.int64)[:, None] * D + d[None, :]
        mask = (k < K)[:, None] & (d < D)[None, :]
        # Nobody reads the sums before the kernel ends, so no order among additions is asked for.
        tl.atomic_add(places, weight[:, None] * gradient[None, :], mask=mask, sem="relaxed")


@_jit()
def _bag_of(sources, entry, there, K: constexpr):
    """The bag of each entry."""
    if K > 0:  # noqa: SIM108 - decided when compiled
        bag = entry // K
    else:
        bag = tl.load(sources + entry, mask=there, other=0)
    return bag


@_jit()
def _row_gradient(
    grad_out,
    order,
    weights,
    sources,
    start,
    stop,
    d,
    K: constexpr,
    D: constexpr,
    BLOCK_E: constexpr,
    BLOCK_D: constexpr,
):
    """``float32[BLOCK_D]``: columns ``d`` of one row's gradient, from its entries (one at least) in order."""
    # Most rows have one entry, so the first does not pay for a whole tile.
    only = tl.load(order + start).to(tl.int32)
    bag = _bag_of(sources, only, True, K).to(tl.int64)
    gradient = tl.load(grad_out + bag * D + d, mask=d < D, other=0.0).to(tl.float32)
    total = tl.load(weights + only).to(tl.float32) * gradient
    # Not a range: with numpy 2.4 the interpreter of triton 3.5 cannot count to a number that was loaded.
    begin = start + 1
    while begin < stop:
        e = begin + tl.arange(0, BLOCK_E)
        entry = tl.load(order + e, mask=e < stop, other=0).to(tl.int32)
        weight = tl.load(weights + entry, mask=e < stop, other=0.0).to(tl.float32)
        tile = _load_rows(grad_out, _bag_of(sources, entry, e < stop, K), e < stop, d, D, True)
        total += tl.sum(tile * weight[:, None], axis=0)
        begin += BLOCK_E
    return total


@_jit()
def _sorted_kernel(
    out,
    grad_out,
    order,
    starts,
    weights,
    sources,
    K: constexpr,
    D: constexpr,
    BLOCKS: constexpr,
    BLOCK_E: constexpr,
    BLOCK_D: constexpr,
):
    """A program for each unique row and block of the width."""
    unique = (tl.program_id(0) // BLOCKS).to(tl.int64)
    d = (tl.program_id(0) % BLOCKS) * BLOCK_D + tl.arange(0, BLOCK_D)
    start = tl.load(starts + unique)
    stop = tl.load(starts + unique + 1)
    total = tl.zeros([BLOCK_D], tl.float32)
    if start < stop:
        total = _row_gradient(grad_out, order, weights, sources, start, stop, d, K, D, BLOCK_E, BLOCK_D)
    # Evicted first: grad_out, which is read again and again, should stay in the cache.
    tl.store(out + unique * D + d, total.to(out.dtype.element_ty), mask=d < D, eviction_policy="evict_first")


@_jit()
def _squares_kernel(
    out,
    grad_out,
    order,
    starts,
    weights,
    sources,
    K: constexpr,
    D: constexpr,
    BLOCK_E: constexpr,
    BLOCK_D: constexpr,
):
    """A program for each unique row."""
    unique = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + unique)
    stop = tl.load(starts + unique + 1)
    if start < stop:
        squares = tl.zeros([BLOCK_D], tl.float32)
        for begin in range(0, D, BLOCK_D):
            d = begin + tl.arange(0, BLOCK_D)
            gradient = _row_gradient(
                grad_out, order, weights, sources, start, stop, d, K, D, BLOCK_E, BLOCK_D
            )
            squares += gradient * gradient
        tl.store(out + unique, tl.sum(squares, axis=0))


@_jit()
def _decay(log_beta, beta_rest, missed):
    """``beta**missed``; in the usual case of 1 without the rounding of a power."""
    return tl.where(missed == 1, 1.0 - beta_rest, tl.exp2(missed.to(tl.float32) * log_beta))


@_jit()
def _adam_update(
    values,
    moment1,
    moment2,
    gradient,
    value,
    first,
    second,
    places,
    inside,
    decay1,
    decay2,
    rest1,
    rest2,
    size,
    root_scale,
    eps,
):
    """Write one block of one row: the loads are the caller's, who issues them before it has a gradient."""
    first = decay1 * first.to(tl.float32) + rest1 * gradient
    second = decay2 * second.to(tl.float32) + rest2 * gradient * gradient
    value = value.to(tl.float32) - size * first / (tl.sqrt_rn(second) * root_scale + eps)
    tl.store(values + places, value.to(values.dtype.element_ty), mask=inside)
    tl.store(moment1 + places, first.to(moment1.dtype.element_ty), mask=inside)
    tl.store(moment2 + places, second.to(moment2.dtype.element_ty), mask=inside)


@_jit(do_not_specialize=["step"])
def _adam_kernel(
    values,
    moment1,
    moment2,
    last_step,
    row_ids,
    grad,
    step,
    log_beta1,
    log_beta2,
    rest1,
    rest2,
    size,
    root_scale,
    eps,
    D: constexpr,
    BLOCK_D: constexpr,
):
    """A program for each unique row, whole: its other blocks must not find ``last_step`` already written."""
    unique = tl.program_id(0).to(tl.int64)
    row = tl.load(row_ids + unique).to(tl.int64)
    if row >= 0:
        missed = step - tl.load(last_step + row)
        decay1 = _decay(log_beta1, rest1, missed)
        decay2 = _decay(log_beta2, rest2, missed)
        for begin in range(0, D, BLOCK_D):
            d = begin + tl.arange(0, BLOCK_D)
            inside = d < D
            places = row * D + d
            value = tl.load(values + places, mask=inside, other=0.0)
            first = tl.load(moment1 + places, mask=inside, other=0.0)
            second = tl.load(moment2 + places, mask=inside, other=0.0)
            gradient = tl.load(
                grad + unique * D + d, mask=inside, other=0.0, eviction_policy="evict_first"
            ).to(tl.float32)
            _adam_update(
                values,
                moment1,
                moment2,
                gradient,
                value,
                first,
                second,
                places,
                inside,
                decay1,
                decay2,
                rest1,
                rest2,
                size,
                root_scale,
                eps,
            )
        tl.store(last_step + row, step.to(last_step.dtype.element_ty))


@_jit(do_not_specialize=["step"])
def _adam_from_factors_kernel(
    values,
    moment1,
    moment2,
    last_step,
    grad_out,
    order,
    starts,
    row_ids,
    weights,
    sources,
    step,
    log_beta1,
    log_beta2,
    rest1,
    rest2,
    size,
    root_scale,
    eps,
    scale,
    clip,
    K: constexpr,
    D: constexpr,
    BLOCK_E: constexpr,
    BLOCK_D: constexpr,
):
    """As :func:`_adam_kernel`, with the gradient summed on the spot."""
    unique = tl.program_id(0).to(tl.int64)
    row = tl.load(row_ids + unique).to(tl.int64)
    if row >= 0:
        start = tl.load(starts + unique)
        stop = tl.load(starts + unique + 1)
        missed = step - tl.load(last_step + row)
        decay1 = _decay(log_beta1, rest1, missed)
        decay2 = _decay(log_beta2, rest2, missed)
        for begin in range(0, D, BLOCK_D):
            d = begin + tl.arange(0, BLOCK_D)
            inside = d < D
            places = row * D + d
            value = tl.load(values + places, mask=inside, other=0.0)
            first = tl.load(moment1 + places, mask=inside, other=0.0)
            second = tl.load(moment2 + places, mask=inside, other=0.0)
            gradient = _row_gradient(
                grad_out, order, weights, sources, start, stop, d, K, D, BLOCK_E, BLOCK_D
            )
            gradient = gradient * scale
            # Not minimum and maximum, which lose what is not a number.
            gradient = tl.where(gradient > clip, clip, tl.where(gradient < -clip, -clip, gradient))
            _adam_update(
                values,
                moment1,
                moment2,
                gradient,
                value,
                first,
                second,
                places,
                inside,
                decay1,
                decay2,
                rest1,
                rest2,
                size,
                root_scale,
                eps,
            )
        tl.store(last_step + row, step.to(last_step.dtype.element_ty))
