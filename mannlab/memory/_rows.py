"""What memories of rows share: checks of sizes, the memory before the first step, and its precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Forward = TypeVar("Forward", bound=Callable[..., Any])


def in_full_precision(forward: Forward) -> Forward:
    """A memory's ``forward`` in the type of its state, also where autocast is on.

    What is added up over many steps does not bear half precision, nor do what norms are kept from zero by.
    """

    @wraps(forward)
    def wrapped(self: Any, interface: Tensor, state: Any) -> Any:
        if not torch.is_autocast_enabled(interface.device.type):
            return forward(self, interface, state)
        with torch.autocast(interface.device.type, enabled=False):
            return forward(self, interface.to(state.memory.dtype), state)

    return cast(Forward, wrapped)


def first_rows(memory: nn.Module, init: str, slots: int, width: int) -> None:
    """Give ``memory`` its ``first_memory[N, W]``: constant (1e-6), learned, or random and fixed."""
    rows = torch.full((slots, width), 1e-6)
    if init != "constant":
        rows = torch.randn(slots, width) * 0.1
    if init == "learned":
        memory.first_memory = nn.Parameter(rows)
    else:
        memory.register_buffer("first_memory", rows, persistent=init == "random")


def on_first_slot(*shape: int) -> Tensor:
    """Weights ``[*shape]`` that are 1 on slot 0."""
    weights = torch.zeros(*shape)
    weights[..., 0] = 1
    return weights
