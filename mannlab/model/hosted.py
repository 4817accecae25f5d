"""Memory inside a controller."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mannlab.contracts import Memory
from mannlab.model.interface import interface_layer


class MemoryLayer(nn.Module):
    """A memory in the place of a layer: interface, memory, and a readout where widths differ or a gate mixes.

    Args:
        width: of what comes in and goes out.
        memory: one without a state.
    """

    def __init__(self, width: int, memory: Memory[Any]) -> None:
        super().__init__()
        self.memory = memory
        self.interface = interface_layer(width, memory)
        mixes = memory.read_size != width or getattr(memory, "gate", False)
        self.readout = nn.Linear(memory.read_size, width) if mixes else nn.Identity()

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """``x[B, T, width]`` and ``valid[B, T]`` or None to ``[B, T, width]``."""
        reads, _ = self.memory.sequence(self.interface(x), self.memory.init_state(len(x)), valid)
        return self.readout(reads)
