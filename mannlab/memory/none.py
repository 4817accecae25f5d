"""No memory: the baseline that every result is compared with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mannlab.contracts import Memory
from mannlab.registry import register


class NoState(NamedTuple):
    """Nothing to remember."""


@register("memory", "none")
class NoMemory(Memory[NoState]):
    """No memory at all: the controller alone, with whole sequences in parallel."""

    stateful = False

    def __init__(self) -> None:
        super().__init__()
        self.interface_size = 0
        self.read_size = 0

    def init_state(self, batch: int) -> NoState:
        return NoState()

    def forward(self, interface: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        return interface, state

    def sequence(
        self, interface: Tensor, state: NoState, valid: Tensor | None = None
    ) -> tuple[Tensor, NoState]:
        return interface, state
