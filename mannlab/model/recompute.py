"""Trading time for memory: a part of a sequence whose history is made again when the backward pass needs it.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174). Unlike torch's own
checkpointing the weights are inputs of the node, so that distributed training sees each gradient once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import get_device_states, set_device_states

from mannlab.kernels.nodes import differentiable_once


def recomputed(
    run: Callable[..., Sequence[Tensor]],
    *inputs: Tensor,
    weights: Sequence[Tensor],
    buffers: Sequence[Tensor] = (),
) -> Any:
    """``run(*inputs)``, keeping nothing but ``inputs`` for the backward pass.

    Args:
        run: gives tensors, by ``inputs`` and ``weights`` alone, and draws the same numbers from the same
            random state.
        inputs: tensors.
        weights: whatever else that ``run`` uses wants a gradient.
        buffers: what ``run`` may change, such as running statistics; the second time leaves them as they are.
    """
    return _Recomputed.apply(run, buffers, len(inputs), *inputs, *weights)


def pack(state: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    """The tensors of a nested state, and what puts others into their places.

    Lists are what steps of one pass share, and none of the state: they are left out.
    """
    leaves, form = tree_flatten(state, is_leaf=lambda part: isinstance(part, list))

    def unpack(tensors: Sequence[Tensor]) -> Any:
        following = iter(tensors)
        kept = [None if isinstance(leaf, list) else leaf for leaf in leaves]
        return tree_unflatten([next(following) if isinstance(leaf, Tensor) else leaf for leaf in kept], form)

    return [leaf for leaf in leaves if isinstance(leaf, Tensor)], unpack


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Sequence[Tensor]], buffers: Sequence[Tensor], count: int, *parts: Tensor
    ) -> Any:
        ctx.run, ctx.count = run, count
        kind = parts[0].device.type
        ctx.kind, ctx.mixed, ctx.dtype = kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        ctx.random, ctx.devices = torch.get_rng_state(), get_device_states(*parts)
        ctx.save_for_backward(*parts)
        versions = [buffer._version for buffer in buffers]
        outputs = run(*parts[:count])
        pairs = zip(buffers, versions, strict=True)
        ctx.changed = [buffer for buffer, version in pairs if buffer._version != version]
        # A view of what came in would be an input given out.
        return tuple(part.clone() for part in outputs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *on: Tensor) -> Any:
        parts = ctx.saved_tensors
        inputs = [part.detach().requires_grad_(part.requires_grad) for part in parts[: ctx.count]]
        weights = parts[ctx.count :]
        kept = [buffer.clone() for buffer in ctx.changed]
        with (
            torch.random.fork_rng(devices=ctx.devices[0], device_type=_accelerator(ctx.kind)),
            torch.enable_grad(),
            torch.autocast(ctx.kind, dtype=ctx.dtype, enabled=ctx.mixed),
        ):
            torch.set_rng_state(ctx.random)
            set_device_states(*ctx.devices)
            outputs = ctx.run(*inputs)
        wanted = [part for part in (*inputs, *weights) if part.requires_grad]
        pairs = [(out, grad) for out, grad in zip(outputs, on, strict=True) if out.requires_grad]
        made, ons = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(made, wanted, ons, allow_unused=True))
        with torch.no_grad():
            for buffer, before in zip(ctx.changed, kept, strict=True):
                buffer.copy_(before)
        return (
            None,
            None,
            None,
            *(next(found) if part.requires_grad else None for part in (*inputs, *weights)),
        )


def _accelerator(kind: str) -> str:
    return "cuda" if kind == "cpu" else kind
