"""An optimizer for a model with large tables of rows: any for the rest, and one of their own for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mannlab.errors import require
from mannlab.kernels.bag import RowAdam, RowTable
from mannlab.kernels.bag.factors import Factors
from mannlab.training.optimizers import GravesRMSprop


def tables_of(model: nn.Module) -> list[RowTable]:
    """The tables of a model that want an optimizer of their own."""
    return [part for part in model.modules() if isinstance(part, RowTable) and part.gradient == "auto"]


def has_tables(model: nn.Module) -> bool:
    """Whether any gradient may be sparse, or in factors."""
    return any(isinstance(part, RowTable) for part in model.modules())


class WithTables(Optimizer):
    """Two optimizers as one. Schedulers see the first alone: tables keep their learning rate.

    Args:
        main: for everything but tables, and what gives those without a learning rate of their own theirs.
        rows: for tables.
    """

    def __init__(self, main: Optimizer, rows: RowAdam) -> None:
        super().__init__(main.param_groups, main.defaults)
        self.main, self.rows = main, rows
        # One list and one state, whoever changes them.
        self.param_groups, self.state = main.param_groups, main.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of everything; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for table, group in zip(self.rows.tables, self.rows.param_groups, strict=True):
            if table.lr is None:
                group["lr"] = self.main.param_groups[0]["lr"]
        self.main.step()
        self.rows.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        self.main.zero_grad(set_to_none)
        self.rows.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"main": self.main.state_dict(), "rows": self.rows.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Both states; None leaves ``main`` as it is."""
        if state_dict["main"] is not None:
            self.main.load_state_dict(state_dict["main"])
        self.rows.load_state_dict(state_dict["rows"])
        self.param_groups, self.state = self.main.param_groups, self.main.state


def numbers_of(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Parameters that have a gradient, and what is stored of it: of a sparse one, the rows that it has."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grads = [(p, p.grad) for p in parameters if p.grad is not None]
    return [(p, grad._values() if grad.is_sparse else grad) for p, grad in grads]


def _numbers(optimizer: Optimizer) -> list[Tensor]:
    return [numbers for _, numbers in numbers_of(optimizer)]


def clip_norm(optimizer: Optimizer, most: float) -> None:
    """Scale all gradients so that together they are not longer than ``most``."""
    numbers = _numbers(optimizer)
    rows = optimizer.rows if isinstance(optimizer, WithTables) else None
    squares = torch.zeros(()) if rows is None else rows.squared_norm()
    for norm in torch._foreach_norm(numbers):
        squares = squares.to(norm) + norm.square()
    scale = float((most / (squares.sqrt() + 1e-6)).clamp(max=1.0))
    torch._foreach_mul_(numbers, scale)
    if rows is not None:
        rows.scale = scale


def clip_value(optimizer: Optimizer, most: float) -> None:
    """Bound each component of all gradients."""
    for numbers in _numbers(optimizer):
        numbers.clamp_(-most, most)
    if isinstance(optimizer, WithTables):
        optimizer.rows.clip = most


def divide(model: nn.Module, rank: int, world: int) -> None:
    """Leave each rank its part of the tables that are to be divided.

    Raises:
        ConfigError: parts would not be equal.
    """
    for table in tables_of(model):
        if table.by is None or table.shards is not None or world == 1:
            continue
        size = table.weight.shape[0 if table.by == "row" else 1]
        key = "slots" if table.by == "row" else "width"
        require(
            size % world == 0,
            f"memory.{key}: {size} cannot be divided among {world} devices (memory.shard={table.by}).",
            f"Make it a multiple of {world}, or use memory.shard=none.",
        )
        table.divide(rank, world)


def divided(model: nn.Module) -> bool:
    """Whether a forward pass needs all ranks."""
    return any(table.shards is not None for table in tables_of(model))


def refuse_sparse(optimizer: Optimizer, model: nn.Module) -> None:
    """Raise ConfigError if the optimizer is known not to take the gradients of a model's tables."""
    wants = any(isinstance(part, RowTable) and part.gradient == "sparse" for part in model.modules())
    dense = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop, GravesRMSprop)
    require(
        not wants or not isinstance(optimizer, dense),
        f"memory.gradient: sparse is not allowed with {type(optimizer).__name__}, which takes dense ones.",
        "Use memory.gradient=auto, or an optimizer such as torch.optim.SGD or torch.optim.Adagrad.",
    )


def gather(table: RowTable, world: int) -> None:
    """Make the gradient of a table the mean over all ranks. What travels are its factors, not its rows."""
    if table.shards is not None:
        return  # it is already
    gradient = table.collected()
    factors = gradient[0] if gradient else None
    like = table.weight
    rows = torch.zeros(0, dtype=torch.int64, device=like.device) if factors is None else factors.rows
    sources = rows if factors is None else factors.sources
    weights = like.new_zeros(0) if factors is None else factors.weights
    grads = like.new_zeros(0, like.shape[1]) if factors is None else factors.grads
    parts = [_gather(part, world) for part in (rows, weights, sources, grads / world)]
    table.pending = [Factors(*mine) for mine in zip(*parts, strict=True)]


def _gather(mine: Tensor, world: int) -> list[Tensor]:
    """The tensors of all ranks, which may differ in length."""
    length = torch.tensor([len(mine)], device=mine.device)
    lengths = [torch.empty_like(length) for _ in range(world)]
    torch.distributed.all_gather(lengths, length)
    longest = max(int(length) for length in lengths)
    padded = mine.new_zeros(longest, *mine.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]
