"""The layer between controller and memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mannlab.contracts import Memory


def interface_layer(hidden: int, memory: Memory[Any]) -> nn.Module:
    """The linear map from the controller's output to what it says to the memory."""
    if memory.interface_size == 0:
        return _Nothing()
    return nn.Linear(hidden, memory.interface_size, bias=memory.interface_bias)


class _Nothing(nn.Module):
    """An interface of no width."""

    def forward(self, h: Tensor) -> Tensor:
        return h[..., :0]
