"""A table of very many rows, of which a step reads few."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mannlab.kernels.bag import ops
from mannlab.kernels.bag.factors import Factors, Reverse, join, of_bags, reverse
from mannlab.kernels.bag.shards import By, Shards, sharded_bag
from mannlab.kernels.nodes import differentiable_once

Gradient = Literal["auto", "sparse", "dense"]


class RowTable(nn.Module):
    """Rows that are read by number, in weighted sums.

    Args:
        rows: N.
        width: D.
        gradient: what the backward pass leaves: ``dense`` or ``sparse`` in ``weight.grad``, for any optimizer
            that takes that; ``auto``: dense, until a :class:`mannlab.kernels.bag.optimizer.RowAdam` is given
            the table, which works on factors and never touches a row that was not read.
        lr: learning rate of the table under a RowAdam; None: that of everything else.
        divide: by what :meth:`divide` divides the table over processes; None: each has all of it.

    Attributes:
        weight: ``[N, D]``, drawn from a normal distribution of standard deviation ``D ** -0.5``.
        pending: factors of the gradient, one entry for each backward pass since the last step.
        factored: whether they are what the backward pass leaves.
        shards: how the table is divided, once it is.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        gradient: Gradient = "auto",
        lr: float | None = None,
        divide: By | None = None,
    ) -> None:
        super().__init__()
        # In place: a second copy may not fit.
        self.weight = nn.Parameter(torch.empty(rows, width).normal_(std=width**-0.5))
        self.gradient, self.lr, self.by = gradient, lr, divide
        self.shards: Shards | None = None
        self.factored = False
        self.pending: list[Factors] = []

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:
        """``rows[T, K]`` (int64) and ``weights[T, K]`` to ``[T, D]``."""
        if self.shards is not None:
            return sharded_bag(self.weight, rows, weights, self)
        if not torch.is_grad_enabled():
            return ops.bag(self.weight, rows, weights)
        out: Tensor = _Bag.apply(self.weight, rows, weights, self)
        return out

    def divide(self, rank: int, world: int) -> None:
        """Keep this rank's part alone, if the table is to be divided; before an optimizer has it.

        ``state_dict`` still gives the whole, and must be called on all ranks; a whole can be loaded.
        """
        if self.by is None or self.shards is not None or world == 1:
            return
        self.shards = Shards(self.by, rank, world, len(self.weight))
        self.weight.data = self.shards.part(self.weight.data).clone()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.shards is not None:
            destination[f"{prefix}weight"] = self.shards.whole(self.weight.detach())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        key = f"{prefix}weight"
        if self.shards is not None and key in state_dict:
            state_dict = {**state_dict, key: self.shards.part(state_dict[key])}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def collected(self) -> tuple[Factors, Reverse] | None:
        """The gradient since the last step and its distinct rows, or None if there is none."""
        if not self.pending:
            return None
        factors = join(self.pending)
        self.pending = [factors]
        return factors, reverse(factors.rows)

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no optimizer yet.
        return {**self.__dict__, "pending": [], "factored": False}


class _Bag(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, weights: Tensor, table: RowTable) -> Tensor:
        ctx.save_for_backward(values, rows, weights)
        ctx.table = table
        return ops.bag(values, rows, weights)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> Any:
        values, rows, weights = ctx.saved_tensors
        on_weights = None
        if ctx.needs_input_grad[2]:
            on_weights = ops.weight_gradient(values, rows, grad).to(weights.dtype)
        if not ctx.needs_input_grad[0]:
            return None, None, on_weights, None
        factors = of_bags(rows, weights, grad.contiguous())
        if ctx.table.factored:
            ctx.table.pending.append(factors)
            return None, None, on_weights, None
        return multiplied(factors, values, ctx.table.gradient == "sparse"), None, on_weights, None


def multiplied(factors: Factors, values: Tensor, sparse: bool) -> Tensor:
    """The gradient of ``values[N, D]`` multiplied out, as a sparse tensor or a dense one."""
    back = reverse(factors.rows)
    rows = ops.row_gradients(factors, back).to(values.dtype)
    if sparse:
        indices = back.ids.unsqueeze(0)
        return torch.sparse_coo_tensor(indices, rows, values.shape, is_coalesced=True, check_invariants=False)
    return torch.zeros_like(values).index_copy_(0, back.ids, rows)
