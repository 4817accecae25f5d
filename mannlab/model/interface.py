"""The layer between controller and memory."""

from __future__ import annotations

from torch import Tensor, nn


def interface_layer(hidden: int, interface: int) -> nn.Module:
    """The linear map from the controller's output to what it says to the memory."""
    if interface == 0:
        return _Nothing()
    return nn.Linear(hidden, interface)


class _Nothing(nn.Module):
    """An interface of no width."""

    def forward(self, h: Tensor) -> Tensor:
        return h[..., :0]
