"""The operations on rows, by the fastest means there is for a device and a type."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from mannlab.kernels.bag.factors import Factors, Reverse
from mannlab.kernels.threads import share

# Below this many numbers compiled code gains less than a first compilation costs.
WORTH_COMPILING = 2**18
LEAST_SHARE = 16  # bags or rows that are worth a thread
CHUNK = 2**24  # numbers that are gathered at a time where nothing fuses


def uses_compiled(values: Tensor, entries: int) -> bool:
    """Whether numba does the work for so many rows."""
    return (
        values.device.type == "cpu"
        and values.dtype in (torch.float32, torch.float64)
        and entries * values.shape[1] >= WORTH_COMPILING
        and find_spec("numba") is not None
    )


def _triton(values: Tensor) -> Any:
    if not values.is_cuda or values.dtype == torch.float64:
        return None
    from mannlab.kernels.bag import triton_kernels

    return triton_kernels if triton_kernels.available() else None


def arrays(*tensors: Tensor) -> list[Any]:
    """For compiled code."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def bag(values: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """``out[t] = sum_k weights[t, k] values[rows[t, k]]``.

    ``values[N, D]``, ``rows[T, K]`` and ``weights[T, K]`` to ``[T, D]``.
    """
    kernels = _triton(values)
    if kernels is not None:
        found: Tensor = kernels.forward(values, rows.contiguous(), weights.contiguous())
        return found
    if uses_compiled(values, rows.numel()):
        from mannlab.kernels.bag import compiled

        out = values.new_empty(len(rows), values.shape[1])
        share(
            compiled.forward,
            len(rows),
            *arrays(values, rows, weights.to(values.dtype), out),
            least=LEAST_SHARE,
        )
        return out
    if rows.shape[1] == 0:
        return values.new_zeros(len(rows), values.shape[1])
    return embedding_bag(rows, values, per_sample_weights=weights.to(values.dtype), mode="sum")


def weight_gradient(values: Tensor, rows: Tensor, grads: Tensor) -> Tensor:
    """``out[t, k] = values[rows[t, k]] . grads[t]``: ``[N, D]``, ``[T, K]``, ``[T, D]`` to ``[T, K]``."""
    kernels = _triton(values)
    if kernels is not None:
        found: Tensor = kernels.weight_gradient(values, rows.contiguous(), grads.contiguous())
        return found
    if uses_compiled(values, rows.numel()):
        from mannlab.kernels.bag import compiled

        out = values.new_empty(rows.shape)
        share(compiled.weight_gradient, len(rows), *arrays(values, rows, grads, out), least=LEAST_SHARE)
        return out
    bags = max(1, CHUNK // max(1, rows.shape[1] * values.shape[1]))
    parts = [
        torch.einsum("tkd,td->tk", values[some], grad.to(values.dtype))
        for some, grad in zip(rows.split(bags), grads.split(bags), strict=True)
    ]
    return torch.cat(parts) if parts else values.new_zeros(rows.shape)


def row_gradients(factors: Factors, back: Reverse) -> Tensor:
    """The gradient of every distinct row, ``[U, D]``."""
    grads = factors.grads
    if uses_compiled(grads, len(factors.rows)):
        from mannlab.kernels.bag import compiled

        out = grads.new_empty(len(back.ids), grads.shape[1])
        share(compiled.gradients, len(out), *as_arrays(factors, back), out.numpy(), least=LEAST_SHARE)
        return out
    out = grads.new_zeros(len(back.ids), grads.shape[1])
    counts = back.starts.diff()
    places = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    entries = max(1, CHUNK // max(1, grads.shape[1]))
    for some, place in zip(back.order.split(entries), places.split(entries), strict=True):
        here = factors.weights[some].unsqueeze(1).to(grads.dtype) * grads[factors.sources[some]]
        out.index_add_(0, place, here)
    return out


def squared_norm(factors: Factors, back: Reverse) -> Tensor:
    """The sum of squares of the whole gradient."""
    if uses_compiled(factors.grads, len(factors.rows)):
        from mannlab.kernels.bag import compiled

        out = factors.grads.new_empty(len(back.ids))
        share(compiled.squares, len(out), *as_arrays(factors, back), out.numpy(), least=LEAST_SHARE)
        return out.sum()
    return row_gradients(factors, back).square().sum()


def as_arrays(factors: Factors, back: Reverse) -> tuple[Any, ...]:
    weights = factors.weights.to(factors.grads.dtype)
    grads, weights, sources, order, starts = arrays(
        factors.grads, weights, factors.sources, back.order, back.starts
    )
    return (order, starts), weights, sources, grads
