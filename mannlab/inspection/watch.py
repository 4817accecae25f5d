"""What is told of a model's steps: where heads look, then what the slots that matter hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mannlab.contracts import Memory
from mannlab.model.hosted import MemoryLayer
from mannlab.model.unroll import Watch

MANY = 4096  # slots of which only the heaviest are kept
KEPT = 256  # of those, by each head at each step

# Of a step: slots and weights, ``[heads, K]`` each.
Look = tuple[Tensor, Tensor]


class Looking(Watch):
    """Keeps where each head looked at each step, of the first sequence.

    Attributes:
        seen: by memory and title, one look a step.
        counts: by memory, its slots.
    """

    def __init__(self) -> None:
        super().__init__({})
        self.seen: dict[Memory[Any], dict[str, list[Look]]] = {}
        self.counts: dict[Memory[Any], int] = {}

    def step(self, memory: Memory[Any], state: Any, times: int = 1) -> None:
        for title, weights in memory.trace(state).items():
            self._keep(memory, title, self._heaviest(memory, weights[0]), times)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        looks = memory.looks(interface, state, valid)
        for title, (slots, weights, total) in looks.items():
            self.counts[memory] = total
            for look in zip(slots[0].cpu(), weights[0].float().cpu(), strict=True):
                self._keep(memory, title, look)
        if looks:
            return
        for title, weights in memory.trace_sequence(interface, memory.snapshot(state), valid).items():
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


class Holding(Watch):
    """Keeps what some slots hold after each step, of the first sequence.

    Args:
        slots: by memory, ``int64[S]``.

    Attributes:
        rows: by memory, ``[S, W]`` for each step.
        fixed: memories that nothing is written to.
    """

    def __init__(self, slots: Mapping[Memory[Any], Tensor]) -> None:
        super().__init__({})
        self.slots = slots
        self.rows: dict[Memory[Any], list[Tensor]] = {}

    def step(self, memory: Memory[Any], state: Any, times: int = 1) -> None:
        slots = self.slots.get(memory)
        rows = None if slots is None else memory.rows(state, slots.to(next(memory_device(memory))))
        if rows is not None:
            # A copy: the buffer of an in-place memory goes on changing.
            self.rows.setdefault(memory, []).extend([rows[0].detach().float().cpu().clone()] * times)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        if memory not in self.slots:
            return
        slots = self.slots[memory].to(interface.device)
        rows = memory.rows_sequence(interface, memory.snapshot(state), slots, valid)
        if rows is not None:
            self.rows[memory] = list(rows[0].detach().float().cpu())


def memory_device(memory: nn.Module) -> Iterator[torch.device]:
    """Where a module lies."""
    for tensor in (*memory.parameters(), *memory.buffers()):
        yield tensor.device
    yield torch.device("cpu")


@contextmanager
def hosted(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Inside, ``watch`` is also told of memories that are layers of the controller."""

    def tell(layer: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        assert isinstance(layer, MemoryLayer)
        x, valid = given[0], given[1] if len(given) > 1 else None
        state = layer.memory.init_state(len(x))
        watch.sequence(layer.memory, layer.interface(x), state, valid)

    layers = [module for module in model.modules() if isinstance(module, MemoryLayer)]
    hooks = [layer.register_forward_hook(tell) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
