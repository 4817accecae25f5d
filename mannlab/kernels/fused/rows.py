"""Memories of rows in a fused sequence: the history of their states, and calls of their compiled steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mannlab.kernels.compiling import announce
from mannlab.kernels.fused.buffers import History
from mannlab.kernels.fused.cells import MemoryCell, Plan
from mannlab.kernels.threads import share

# What takes a few times as long as waking a thread does, in numbers of a memory that a head goes through.
WORTH_A_THREAD = 600_000


class RowsCell(MemoryCell):
    """A memory whose step is compiled, forward and backward, for some rows of the batch at a time.

    The first part of its state is the memory ``[B, N, W]``, which lies here as ``[B, W, N]``; the others lie
    as they are. The compiled functions are given::

        forward(low, high, t, i, j, k, valid, said, *states, *own, reads, *settings)
        backward(low, high, t, valid, said, *states, *own, *gradients, on_reads, on_said, *settings)

    Arrays are histories, time first. ``i``: where the step's own values go; ``j`` and ``k``: where the states
    before and after it lie. The gradients are those of the first ``differentiable`` parts of the state.

    Args:
        state: the initial one.
        settings: what else the compiled functions want.
    """

    what: ClassVar[str]
    seconds: ClassVar[int]
    differentiable: ClassVar[int]
    compiled_forward: ClassVar[Callable[..., Any]]
    compiled_backward: ClassVar[Callable[..., Any]]

    def __init__(self, state: tuple[Tensor, ...], *settings: Any) -> None:
        self.state, self.settings = state, settings

    @abstractmethod
    def sizes(self, state: Sequence[Tensor]) -> tuple[int, Mapping[str, tuple[int, ...]], int]:
        """The interface's width; shapes, without time and batch, of what a step keeps for its backward pass;
        and how many numbers of the memory a step of one batch row goes through."""

    def begin(self, plan: Plan, state: Sequence[Tensor], reads: Tensor) -> None:
        announce(type(self).compiled_forward, self.what, self.seconds)
        self.plan = plan
        # Without a backward pass two states are enough: the one before and the one after.
        own, states = (plan.steps, plan.steps + 1) if plan.keep else (1, 2)
        width, kept, work = self.sizes(state)
        placed = [state[0].transpose(1, 2), *state[1:]]
        self._names = [f"state {n}" for n in range(len(placed))]
        shapes: dict[str, tuple[int, ...]] = {"said": (own, plan.batch, width)}
        shapes |= {name: (states, *part.shape) for name, part in zip(self._names, placed, strict=True)}
        shapes |= {name: (own, plan.batch, *shape) for name, shape in kept.items()}
        self.history = History(shapes, plan.dtype)
        for name, part in zip(self._names, placed, strict=True):
            self.history.tensors[name][0] = part
        self._said = self.history.tensors["said"].unbind(0)
        self._arrays = tuple(self.history.arrays[name] for name in shapes)
        self._reads = reads.detach().numpy()
        self._least = max(1, WORTH_A_THREAD // work)

    def said(self, t: int) -> Tensor:
        return self._said[t if self.plan.keep else 0]

    def forward(self, t: int) -> None:
        own, before, after = (t, t, t + 1) if self.plan.keep else (0, t & 1, 1 - (t & 1))
        where = (t, own, before, after, self.plan.valid)
        function, tail = type(self).compiled_forward, (self._reads, *self.settings)
        share(function, self.plan.batch, *where, *self._arrays, *tail, least=self._least)

    def last(self) -> tuple[Tensor, ...]:
        at = self.plan.steps if self.plan.keep else self.plan.steps & 1
        memory, *others = (self.history.tensors[name][at] for name in self._names)
        rows = memory.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return rows, *(part.clone() for part in others)

    def begin_backward(self, on_last: Sequence[Tensor | None]) -> Any:
        on_states = [
            torch.zeros_like(self.history.tensors[name][0]) for name in self._names[: self.differentiable]
        ]
        for n, (on_state, given) in enumerate(zip(on_states, on_last, strict=False)):
            if given is not None:
                on_state.copy_(given.transpose(1, 2) if n == 0 else given)
        return on_states, [on_state.numpy() for on_state in on_states]

    def backward(self, carried: Any, t: int, on_reads: Tensor, on_said: Tensor) -> None:
        ons = (*carried[1], on_reads.numpy(), on_said.numpy())
        where = (t, self.plan.valid)
        function, least = type(self).compiled_backward, self._least // 2
        share(function, self.plan.batch, *where, *self._arrays, *ons, *self.settings, least=least)

    def end_backward(self, carried: Any, needed: Sequence[bool]) -> list[Tensor | None]:
        on_memory, *others = carried[0]
        found: list[Tensor | None] = [on_memory.transpose(1, 2), *others]
        found += [None] * (len(self._names) - self.differentiable)
        return [part if asked else None for part, asked in zip(found, needed, strict=True)]
