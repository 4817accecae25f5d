"""Adam for tables: the work of a step is in proportion to the rows that were read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mannlab.kernels.bag import ops
from mannlab.kernels.bag.factors import Factors, Reverse
from mannlab.kernels.bag.table import RowTable
from mannlab.kernels.threads import share


class RowAdam(Optimizer):
    """Adam (Kingma and Ba 2014) for the rows that were read since the last step, as in Lample et al. 2019.

    When a row is read again its moments decay for all the steps in which it was not, so at each step that
    reads it they are what Adam's would be. What is left out: Adam moves a row in the steps after, too, by
    what is left of its first moment. ``torch.optim.SparseAdam`` differs in the moments as well: they decay
    only in steps that read the row.

    Args:
        tables: whose gradients are kept as factors from now on.
        lr: learning rate of tables that have none of their own.
        betas: decays of the moments.
        eps: added to the root.

    Attributes:
        scale: multiplies the next step's gradients (clipping by norm).
        clip: bounds each component of them, after that (clipping by value).
    """

    def __init__(
        self,
        tables: Iterable[RowTable],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.tables = list(tables)
        self.scale, self.clip = 1.0, math.inf
        groups = [
            {"params": [table.weight], "lr": lr if table.lr is None else table.lr} for table in self.tables
        ]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        for table in self.tables:
            table.factored = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for table, group in zip(self.tables, self.param_groups, strict=True):
            state = self.state[table.weight]
            if not state:
                state |= {
                    "step": 0,
                    "first": torch.zeros_like(table.weight),
                    "second": torch.zeros_like(table.weight),
                    "last": torch.zeros(len(table.weight), dtype=torch.int64, device=table.weight.device),
                }
            state["step"] += 1
            gradient = table.collected()
            if gradient is not None:
                _update(table.weight, state, *gradient, group, self.scale, self.clip)
                table.pending = []
        self.scale, self.clip = 1.0, math.inf
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients."""
        super().zero_grad(set_to_none)
        for table in self.tables:
            table.pending = []

    def squared_norm(self) -> Tensor:
        """The sum of squares of all tables' gradients."""
        total = self.tables[0].weight.new_zeros(())
        for table in self.tables:
            gradient = table.collected()
            if gradient is not None:
                total = total + ops.squared_norm(*gradient)
            if table.shards is not None:
                apart = ops.squared_norm(*gradient) if gradient is not None else total.new_zeros(())
                others = apart.clone()
                torch.distributed.all_reduce(others)
                total = total + (others - apart)
        return total

    def state_dict(self) -> dict[str, Any]:
        """As usual, of whole tables; all ranks must call it where tables are divided."""
        found = super().state_dict()
        found["state"] = {
            number: self._across(int(number), state, "whole") for number, state in found["state"].items()
        }
        return found

    def _across(self, number: int, state: dict[str, Any], do: str) -> dict[str, Any]:
        shards = self.tables[number].shards
        if shards is None:
            return state
        move = getattr(shards, do)
        return {key: move(part) if isinstance(part, Tensor) else part for key, part in state.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As usual, but counters stay whole numbers."""
        mine = {n: self._across(int(n), state, "part") for n, state in state_dict["state"].items()}
        state_dict = {**state_dict, "state": mine}
        super().load_state_dict(state_dict)
        for number, saved in state_dict["state"].items():
            weight = self.tables[int(number)].weight
            self.state[weight]["last"] = saved["last"].to(weight.device, torch.int64)
            self.state[weight]["step"] = int(saved["step"])


def _update(
    values: Tensor,
    state: dict[str, Any],
    factors: Factors,
    back: Reverse,
    group: dict[str, Any],
    scale: float,
    clip: float,
) -> None:
    (beta1, beta2), lr, eps = group["betas"], group["lr"], group["eps"]
    first, second, last, step = state["first"], state["second"], state["last"], state["step"]
    if ops.uses_compiled(values, len(factors.rows)) and factors.grads.dtype == values.dtype:
        from mannlab.kernels.bag import compiled

        ids, values_, first_, second_, last_ = ops.arrays(back.ids, values, first, second, last)
        entries = ops.as_arrays(factors, back)
        settings, limits = (float(lr), beta1, beta2, eps), (float(scale), clip)
        tables = (values_, first_, second_, last_, step, settings, limits)
        share(compiled.adam, len(ids), ids, *entries, *tables, least=ops.LEAST_SHARE)
        return
    ids = back.ids
    grad = ops.row_gradients(factors, back).mul_(scale).clamp_(-clip, clip).to(values.dtype)
    missed = (step - last[ids]).unsqueeze(1).to(values.dtype)
    last[ids] = step
    mean = first[ids].mul_(beta1**missed).add_(grad, alpha=1 - beta1)
    square = second[ids].mul_(beta2**missed).addcmul_(grad, grad, value=1 - beta2)
    first[ids], second[ids] = mean, square
    root = square.div_(1 - beta2**step).sqrt_().add_(eps)
    values.index_add_(0, ids, mean.div_(root), alpha=-lr / (1 - beta1**step))
