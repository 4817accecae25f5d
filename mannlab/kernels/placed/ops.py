"""The sums by compiled code on a CPU, else by torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from mannlab.kernels.bag.ops import LEAST_SHARE, arrays, uses_compiled
from mannlab.kernels.nodes import differentiable_once
from mannlab.kernels.threads import share


def placed_sum(table: Tensor, symbols: Tensor, parts: Tensor | None) -> Tensor:
    """The sum of the vectors of each row's symbols.

    With ``parts``, component d of the symbol at place j of J, counted from 1, is weighted by
    ``(1 - j / J) - parts[d] (1 - 2 j / J)`` (Sukhbaatar et al. 2015, section 4.1, with parts ``d / D``).

    Args:
        table: ``[V, D]``.
        symbols: ``int64[T, J]``, in their order; -1 for none, after the last one.
        parts: ``[D]``; None: the order does not count.

    Returns:
        ``[T, D]``; zeros where there is no symbol.
    """
    if uses_compiled(table, symbols.numel()) and (parts is None or parts.dtype == table.dtype):
        out: Tensor = _Compiled.apply(table, symbols, parts)
        return out
    there = (symbols >= 0).to(table)
    known = symbols.clamp_min(0)
    if parts is None:
        return _weighted(table, known, there)
    places = there.cumsum(1) / there.sum(1, keepdim=True).clamp_min(1)
    # Linear in the parts: two sums, whatever the width.
    level = _weighted(table, known, (1 - places) * there)
    return level - parts * _weighted(table, known, (1 - 2 * places) * there)


def _weighted(table: Tensor, symbols: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(symbols, table, mode="sum", per_sample_weights=weights)


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, symbols: Tensor, parts: Tensor | None) -> Tensor:
        from mannlab.kernels.placed import compiled

        ctx.save_for_backward(table, symbols, parts)
        given = arrays(table, symbols, table[0] if parts is None else parts)
        out = table.new_empty(len(symbols), table.shape[1])
        share(compiled.forward, len(out), *given, parts is not None, out.numpy(), least=LEAST_SHARE)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        from mannlab.kernels.placed import compiled

        table, symbols, parts = ctx.saved_tensors
        given = arrays(grad, symbols, table[0] if parts is None else parts)
        out = torch.zeros_like(table)
        # Each thread has columns of its own, so that no two add to one number.
        share(compiled.gradient, table.shape[1], *given, parts is not None, out.numpy(), least=LEAST_SHARE)
        return out, None, None
