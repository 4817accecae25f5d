"""The layer between controller and memory."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mannlab.contracts import Memory
from mannlab.errors import ConfigError, choices, require

KINDS = ("linear", "direct")


def interface_layer(
    hidden: int, memory: Memory[Any], kind: Literal["linear", "direct"] = "linear", gain: float = 1.0
) -> nn.Module:
    """The linear map from the controller's output to what it says to the memory; nothing, if ``direct``.

    Its weights start ``gain`` times as large as usual; a memory that is told nothing has none.

    Raises:
        ConfigError: there is no such kind, what goes to the memory as it is has another width, or the gain is
            not above 0, or not 1 where it goes as it is.
    """
    require(gain > 0, f"model.interface_gain: {gain} is not allowed.", "It must be above 0.")
    if kind not in KINDS:
        raise ConfigError(f"model.interface: there is no '{kind}'.", choices(kind, KINDS, "interfaces"))
    if kind == "direct":
        require(
            gain == 1,
            f"model.interface_gain: {gain} is not allowed with model.interface=direct.",
            "There are no weights: use model.interface_gain=1.",
        )
        require(
            hidden == memory.interface_size,
            f"model.interface: direct is not allowed: the controller says {hidden} numbers, and the memory "
            f"takes {memory.interface_size}.",
            "Make them equal (with controller.layers=0 a feed-forward controller says what comes in), or use "
            "model.interface=linear.",
        )
        return nn.Identity()
    if memory.interface_size == 0:
        return _Nothing()
    layer = nn.Linear(hidden, memory.interface_size, bias=memory.interface_bias)
    with torch.no_grad():
        layer.weight.mul_(gain)
    return layer


class _Nothing(nn.Module):
    """An interface of no width."""

    def forward(self, h: Tensor) -> Tensor:
        return h[..., :0]
