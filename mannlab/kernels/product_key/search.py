"""Exact search among n^2 keys by two searches among n, with a gradient for what was found alone."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mannlab.kernels.bag import ops
from mannlab.kernels.bag.factors import of_bags
from mannlab.kernels.bag.table import multiplied
from mannlab.kernels.nodes import differentiable_once
from mannlab.kernels.threads import share

LEAST_SHARE = 8  # queries that are worth a thread


class Found(NamedTuple):
    """Attributes: ``rows`` (int64) and ``scores``, ``[T, H, k]``, best first."""

    rows: Tensor
    scores: Tensor


def search(queries: Tensor, keys: Tensor, count: int) -> Found:
    """The best of all n^2 keys for each query (Lample et al. 2019, section 3.1).

    The best k sums are among those of the best k of each half, and of these only pairs of ranks i, j with
    ``(i + 1) (j + 1) <= k`` can be: some k ln k comparisons in place of n^2.

    Args:
        queries: ``[T, H, 2, d]``.
        keys: ``[2, H, n, d]``, or ``[2, 1, n, d]``, shared by the heads; k is at most n.
        count: k.
    """
    steps, heads = queries.shape[:2]
    _, tables, size, _ = keys.shape
    # One table of each half for all heads: they are only more queries.
    asked = queries.reshape(steps * heads, 1, 2, -1) if tables == 1 else queries
    # Ranks are told from scores that differ little: never in half precision unless the keys are.
    with torch.autocast(keys.device.type, enabled=False):
        scores, first, second = _Search.apply(asked.to(keys.dtype), keys, count)
    shape = (steps, heads, count)
    return Found((first * size + second).view(shape), scores.view(shape))


class _Search(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        steps, heads = queries.shape[:2]
        size = keys.shape[2]
        found = []
        # Head by head, so that the scores stay in the processor's cache.
        halves = queries.new_empty(2, steps, size)
        for head in range(heads):
            for half in range(2):
                torch.mm(queries[:, head, half], keys[half, head].t(), out=halves[half])
            found.append(select(halves[0], halves[1], count))
        scores, first, second = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
        ctx.save_for_backward(queries, keys, first, second)
        ctx.mark_non_differentiable(first, second)
        return scores, first, second

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        queries, keys, first, second = ctx.saved_tensors
        _, heads, size, width = keys.shape
        count = first.shape[-1]
        # All half-keys as rows of one table, and each half of each query as a bag of those it found.
        begin = torch.arange(2 * heads, device=first.device).view(2, heads).t().unsqueeze(2) * size
        rows = (torch.stack([first, second], dim=2) + begin).view(-1, count)
        weights = grad.unsqueeze(2).expand(-1, -1, 2, -1).reshape(-1, count)
        flat = keys.reshape(-1, width)
        on_queries = on_keys = None
        if ctx.needs_input_grad[0]:
            on_queries = ops.bag(flat, rows, weights).view_as(queries)
        if ctx.needs_input_grad[1]:
            factors = of_bags(rows, weights, queries.reshape(-1, width))
            on_keys = multiplied(factors, flat, sparse=False).view_as(keys)
        return on_queries, on_keys, None


@cache
def _pairs(count: int, device: torch.device) -> Tensor:
    """Which pairs of ranks can be among the best: ``i * count + j``."""
    pairs = [i * count + j for i in range(count) for j in range(count // (i + 1))]
    return torch.tensor(pairs, device=device)


def select(first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best sums of one score of each half.

    Args:
        first: ``[Q, n]``.
        second: ``[Q, n]``.
        count: k.

    Returns:
        the sums ``[Q, k]``, descending, and the places in both halves, int64 ``[Q, k]``.
    """
    if ops.uses_compiled(first, len(first)):
        from mannlab.kernels.product_key import compiled

        scores = first.new_empty(len(first), count)
        rows_first, rows_second = (torch.empty(scores.shape, dtype=torch.int64) for _ in range(2))
        arrays = ops.arrays(first, second, rows_first, rows_second, scores)
        share(compiled.select, len(first), *arrays, least=LEAST_SHARE)
        return scores, rows_first, rows_second
    scores_first, places_first = first.topk(count, dim=-1)
    scores_second, places_second = second.topk(count, dim=-1)
    sums = (scores_first.unsqueeze(-1) + scores_second.unsqueeze(-2)).flatten(1)
    pairs = _pairs(count, first.device)
    scores, found = sums[:, pairs].topk(count, dim=-1)
    pair = pairs[found]
    i, j = pair // count, pair % count
    return scores, places_first.gather(1, i), places_second.gather(1, j)
