"""A table whose rows, or columns, lie on several devices: what travels is indices and sums, never rows.

With W ranks that see T bags of K entries each, a step moves, per rank and direction, T K (W - 1) indices and
weights; then T D (W - 1) / W sums if columns are divided, T D (W - 1) if rows are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from mannlab.kernels.bag import ops
from mannlab.kernels.bag.factors import Factors, of_bags
from mannlab.kernels.nodes import differentiable_once

By = Literal["dim", "row"]


@dataclass(frozen=True)
class Shards:
    """How a table ``[N, D]`` is divided: rank r has the r-th of ``world`` equal parts.

    Attributes:
        by: ``dim``: of the columns; ``row``: of the rows.
        rank: this process's.
        world: how many there are.
        rows: N.
    """

    by: By
    rank: int
    world: int
    rows: int

    @property
    def axis(self) -> int:
        """The divided axis of the table."""
        return 0 if self.by == "row" else 1

    def part(self, whole: Tensor) -> Tensor:
        """This rank's part of something that has the table's shape, or a number for each row."""
        if whole.dim() <= self.axis:
            return whole
        return whole.chunk(self.world, self.axis)[self.rank].contiguous()

    def whole(self, part: Tensor) -> Tensor:
        """The parts of all ranks, put together; all must call it."""
        if part.dim() <= self.axis:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, self.axis)

    def mine(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as numbers in this rank's part, and which of them are in it."""
        if self.by == "dim":
            return rows, torch.ones_like(rows, dtype=torch.bool)
        size = self.rows // self.world
        local = rows - self.rank * size
        inside = (local >= 0) & (local < size)
        return torch.where(inside, local, 0), inside


def sharded_bag(values: Tensor, rows: Tensor, weights: Tensor, table: Any) -> Tensor:
    """``ops.bag`` on a divided table; all ranks must call it, with as many entries a bag.

    Args:
        values: this rank's part.
        rows: int64 ``[T, K]``, numbers in the whole table; T may differ from rank to rank.
        weights: ``[T, K]``.
        table: the RowTable, which has the Shards and is left the gradient's factors.

    Returns:
        ``[T, D]``.
    """
    out: Tensor = _ShardedBag.apply(values, rows, weights, table)
    return out


class _ShardedBag(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, weights: Tensor, table: Any) -> Tensor:
        shards: Shards = table.shards
        bags = _lengths(rows, shards)
        every, asked = shards.mine(_gather(rows, bags))
        factors = torch.where(asked, _gather(weights.to(values.dtype), bags), 0)
        sums = _to_owners(ops.bag(values, every, factors), bags, shards)
        ctx.table, ctx.bags, ctx.kind = table, bags, weights.dtype
        ctx.save_for_backward(values, every, factors, asked)
        if shards.by == "row":
            return sums.sum(0)
        return sums.transpose(0, 1).flatten(1)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> Any:
        values, rows, weights, asked = ctx.saved_tensors
        table, bags = ctx.table, ctx.bags
        shards: Shards = table.shards
        grad = grad.to(values.dtype)
        if shards.by == "row":
            grads = _gather(grad, bags)
        else:
            parts = grad.unflatten(1, (shards.world, -1)).transpose(0, 1).contiguous()
            grads = grad.new_empty(sum(bags), parts.shape[2])
            mine = [len(grad)] * shards.world
            dist.all_to_all_single(grads, parts.flatten(0, 1), bags, mine)
        on_weights = torch.where(asked, ops.weight_gradient(values, rows, grads), 0)
        on_weights = _to_owners(on_weights, bags, shards).sum(0).to(ctx.kind)
        # The mean over ranks, as of every other gradient.
        factors = of_bags(rows, weights, grads / shards.world)
        table.pending.append(_only(factors, asked.flatten()) if shards.by == "row" else factors)
        return None, None, on_weights, None


def _only(factors: Factors, kept: Tensor) -> Factors:
    rows, weights, sources, grads = factors
    return Factors(rows[kept], weights[kept], sources[kept], grads)


def _lengths(rows: Tensor, shards: Shards) -> list[int]:
    """How many bags each rank has."""
    mine = torch.tensor([len(rows)], device=rows.device)
    every = [torch.empty_like(mine) for _ in range(shards.world)]
    dist.all_gather(every, mine)
    return [int(count) for count in every]


def _gather(mine: Tensor, bags: list[int]) -> Tensor:
    """The bags of all ranks, ``[sum of bags, ...]``."""
    longest = max(bags)
    padded = mine.new_zeros(longest, *mine.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in bags]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, bags, strict=True)])


def _to_owners(sums: Tensor, bags: list[int], shards: Shards) -> Tensor:
    """Give every rank what all others have for its bags: ``[sum of bags, X]`` to ``[world, T, X]``."""
    own = bags[shards.rank]
    found = sums.new_empty(shards.world * own, sums.shape[1])
    dist.all_to_all_single(found, sums.contiguous(), [own] * shards.world, bags)
    return found.unflatten(0, (shards.world, own))
