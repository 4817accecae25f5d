"""Memory inside a controller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mannlab.contracts import Memory
from mannlab.model.interface import interface_layer
from mannlab.model.watch import Watch


class MemoryLayer(nn.Module):
    """A memory in the place of a layer: interface, memory, and a readout where widths differ or a gate mixes.

    Args:
        width: of what comes in and goes out.
        memory: one without a state.
        gain: how many times as large as usual the interface's weights start.

    Attributes:
        watch: is shown each sequence, if given.
    """

    watch: Watch | None = None

    def __init__(self, width: int, memory: Memory[Any], gain: float = 1.0) -> None:
        super().__init__()
        self.memory = memory
        self.interface = interface_layer(width, memory, gain=gain)
        mixes = memory.read_size != width or getattr(memory, "gate", False)
        self.readout = nn.Linear(memory.read_size, width) if mixes else nn.Identity()

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """``x[B, T, width]`` and ``valid[B, T]`` or None to ``[B, T, width]``."""
        said = self.interface(x)
        if self.watch is not None:
            self.watch.sequence(self.memory, said, self.memory.init_state(len(x)), valid)
        reads, _ = self.memory.sequence(said, self.memory.init_state(len(x)), valid)
        return self.readout(reads)


@contextmanager
def watched(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Inside, ``watch`` is also shown the memories that are layers of the controller."""
    layers = [part for part in model.modules() if isinstance(part, MemoryLayer)]
    for layer in layers:
        layer.watch = watch
    try:
        yield
    finally:
        for layer in layers:
            layer.watch = None
