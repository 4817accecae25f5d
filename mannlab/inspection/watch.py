"""What is told of a model's steps: where heads look, then what the slots that matter hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mannlab.contracts import Memory

MANY = 4096  # slots of which only the heaviest are kept
KEPT = 256  # of those, by each head at each step

# Of a step: slots and weights, ``[heads, K]`` each.
Look = tuple[Tensor, Tensor]


class Looking:
    """Keeps where each head looked at each step, of the first sequence.

    Attributes:
        seen: by memory and title, one look a step.
        counts: by memory, its slots.
    """

    def __init__(self) -> None:
        self.seen: dict[Memory[Any], dict[str, list[Look]]] = {}
        self.counts: dict[Memory[Any], int] = {}

    def step(
        self,
        memory: Memory[Any],
        interface: Tensor | None,
        state: Any,
        valid: Tensor | None,
        times: int = 1,
    ) -> None:
        """See :class:`mannlab.model.watch.Watch`."""
        for title, weights in memory.trace(state).items():
            self._keep(memory, title, self._heaviest(memory, weights[0]), times)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        looks = memory.looks(interface, state, valid)
        for title, (weights, total, slots) in looks.items():
            self.counts[memory] = total
            assert slots is not None
            for look in zip(slots[0].cpu(), weights[0].float().cpu(), strict=True):
                self._keep(memory, title, look)
        if looks:
            return
        for title, weights in memory.trace_sequence(interface, state, valid).items():
            for here in weights[0]:
                self._keep(memory, title, self._heaviest(memory, here))

    def _heaviest(self, memory: Memory[Any], weights: Tensor) -> Look:
        heads, count = weights.shape
        self.counts[memory] = count
        weights = weights.detach().float()
        if count > MANY:
            found = weights.topk(KEPT, dim=-1)
            return found.indices.cpu(), found.values.cpu()
        return torch.arange(count).expand(heads, -1), weights.cpu()

    def _keep(self, memory: Memory[Any], title: str, look: Look, times: int = 1) -> None:
        self.seen.setdefault(memory, {}).setdefault(title, []).extend([look] * times)


class Holding:
    """Keeps what some slots hold after each step, of the first sequence.

    Args:
        slots: by memory, ``int64[S]``.

    Attributes:
        rows: by memory, ``[S, W]`` for each step.
        fixed: memories that nothing is written to.
    """

    def __init__(self, slots: Mapping[Memory[Any], Tensor]) -> None:
        self.slots = slots
        self.rows: dict[Memory[Any], list[Tensor]] = {}

    def step(
        self,
        memory: Memory[Any],
        interface: Tensor | None,
        state: Any,
        valid: Tensor | None,
        times: int = 1,
    ) -> None:
        """See :class:`mannlab.model.watch.Watch`."""
        slots = self.slots.get(memory)
        rows = None if slots is None else memory.rows(state, slots.to(next(memory_device(memory))))
        if rows is not None:
            # A copy: the buffer of an in-place memory goes on changing.
            self.rows.setdefault(memory, []).extend([rows[0].detach().float().cpu().clone()] * times)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        if memory not in self.slots:
            return
        slots = self.slots[memory].to(interface.device)
        rows = memory.rows_sequence(interface, state, slots, valid)
        if rows is not None:
            self.rows[memory] = list(rows[0].detach().float().cpu())


def memory_device(memory: nn.Module) -> Iterator[torch.device]:
    """Where a module lies."""
    for tensor in (*memory.parameters(), *memory.buffers()):
        yield tensor.device
    yield torch.device("cpu")
