"""The dense memory's step on a GPU as one autograd node of one kernel each way (see ``triton_kernels.py``).

Nothing waits for the device and no shape depends on data, so that CUDA graphs can capture it. The memory does
not stay on chip from step to step: between two steps lies the controller, whose weights every program would
have to go through alone.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mannlab.kernels.bag.triton_kernels import available, interpreted
from mannlab.kernels.nodes import differentiable_once
from mannlab.kernels.ntm import triton_kernels as kernels
from mannlab.kernels.ntm.constants import NORM_EPSILON, SMALLEST_WEIGHT

log = logging.getLogger(__name__)

# Numbers of a memory that a program holds at a time, and numbers of weights of some heads.
TILE_NUMBERS = 4096
WEIGHT_NUMBERS = 4096
# Beyond these a program for each row of the batch has too much to do alone: torch spreads it over the GPU.
MOST_SLOTS = 4096
MOST_NUMBERS = 2**18
# Half as many would hold 32 numbers of a tile in each thread, and the backward pass fill the registers.
WARPS = 8

# Tests set it to NaN, so that a number that is read before it is written spoils the result.
fill: float | None = None


def ntm_step(
    interface: Tensor,
    memory: Tensor,
    weights: Tensor,
    valid: Tensor | None = None,
    *,
    writers: int = 1,
    shifts: int = 3,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of all heads, as :func:`mannlab.kernels.ntm.naive_step` has it, in the type of ``memory``.

    Args:
        interface: ``[B, H (W + S + 3) + 2 V W]`` of any floating type, fields before their activations, in
            the order of ``DenseMemory.fields``.
        memory: ``[B, N, W]``, float32 (or float64).
        weights: ``[B, H, N]``, read heads first, of the same type.
        valid: ``[B]``; where it is 0, memory and weights stay, and reads and the interface's gradient are
            zeros.
        writers: V, how many of the H heads write, the last ones.
        shifts: S, odd.

    Returns:
        Reads ``[B, R W]``, the next memory and the next weights, of the type of ``memory``. They can be
        differentiated once.
    """
    reads, new_memory, new_weights = _Step.apply(interface, memory, weights, valid, writers, shifts)
    return reads, new_memory, new_weights


def serves(memory: Tensor) -> bool:
    """Whether the kernels run where ``memory[B, N, W]`` lies, and are made for its type and size."""
    if not available() or not (interpreted() or (memory.is_cuda and _runs(memory.device))):
        return False
    (_, slots, width), types = memory.shape, (torch.float32, torch.float64)
    return memory.dtype in types and slots <= MOST_SLOTS and slots * width <= MOST_NUMBERS


@cache
def _runs(device: torch.device) -> bool:
    """Whether a step goes through: triton wants a C compiler and a driver that it knows, besides a GPU."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            interface = torch.zeros(1, 12, device=device, requires_grad=True)
            ones = torch.ones(1, 2, 1, device=device)
            outputs = ntm_step(interface, ones[:, :1], ones, shifts=1)
            torch.autograd.grad(outputs[0].sum(), interface)
    # Whatever it is, torch can do without.
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        log.warning("The dense memory's kernels do not run here: %s: %s", type(error).__name__, why)
        return False
    return True


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        interface: Tensor,
        memory: Tensor,
        weights: Tensor,
        valid: Tensor | None,
        writers: int,
        shifts: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (batch, slots, width), heads = memory.shape, weights.shape[1]
        # Rows may lie anywhere: an initial state is one row, expanded.
        memory, weights, interface = _rows(memory), _rows(weights), _rows(interface)
        reads = _empty(memory, batch, (heads - writers) * width)
        new_memory = _empty(memory, batch, slots, width)
        new_weights = _empty(memory, batch, heads, slots)
        history = _empty(memory, batch, 3 * heads + 1, slots)
        ctx.sizes, ctx.options = _sizes(slots, width, heads, writers, shifts)
        ctx.strides = tuple(part.stride(0) for part in (interface, memory, weights))
        ctx.strides += (0 if valid is None else valid.stride(0),)
        with _on(memory):
            kernels.forward[(batch,)](
                interface,
                memory,
                weights,
                valid,
                reads,
                new_memory,
                new_weights,
                history,
                *ctx.strides,
                *ctx.sizes,
                **ctx.options,
            )
        ctx.save_for_backward(interface, memory, weights, valid, new_weights, history)
        ctx.set_materialize_grads(False)
        return reads, new_memory, new_weights

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *on_outputs: Tensor | None) -> Any:
        interface, memory, weights, valid, new_weights, history = ctx.saved_tensors
        batch, slots, width = memory.shape
        heads = weights.shape[1]
        given = [None if on is None else on.to(memory.dtype).contiguous() for on in on_outputs]
        on_interface = _empty(interface, *interface.shape)
        on_memory = _empty(memory, batch, slots, width)
        on_weights = _empty(memory, batch, heads, slots)
        scratch = _empty(memory, batch, 2 * heads, slots)
        with _on(memory):
            kernels.backward[(batch,)](
                interface,
                memory,
                weights,
                valid,
                new_weights,
                history,
                *given,
                on_interface,
                on_memory,
                on_weights,
                scratch,
                *ctx.strides,
                *ctx.sizes,
                **ctx.options,
            )
        return on_interface, on_memory, on_weights, None, None, None


@cache
def _sizes(
    slots: int, width: int, heads: int, writers: int, shifts: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What is compiled in, and options of the launch. Tiles have powers of two as sizes."""
    columns, wide = _power(width), _power(slots)
    tile = max(1, min(wide, TILE_NUMBERS // columns))
    at_once = max(1, min(_power(heads), WEIGHT_NUMBERS // wide))
    made = (tile, columns, wide, at_once, _power(heads), _power(shifts))
    # Fusion said out loud because triton 3.10 turns multiply-add off where it is not.
    options = {"num_warps": WARPS, "enable_fp_fusion": True}
    return (NORM_EPSILON, SMALLEST_WEIGHT, slots, width, heads, writers, shifts, *made), options


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _rows(tensor: Tensor) -> Tensor:
    """The same, each row of the batch in one piece."""
    return tensor if tensor[0].is_contiguous() else tensor.contiguous()


def _empty(like: Tensor, *shape: int) -> Tensor:
    made = like.new_empty(shape)
    return made if fill is None else made.fill_(fill)


def _on(tensor: Tensor) -> Any:
    """Triton launches on the current device, whatever the tensors' own."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
