"""The dense memory in a fused sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mannlab.kernels.compiling import announce
from mannlab.kernels.fused.buffers import History
from mannlab.kernels.fused.cells import MemoryCell, Plan
from mannlab.kernels.ntm import compiled
from mannlab.kernels.threads import share

# What takes a few times as long as waking a thread does, in numbers of a memory that a head goes through.
WORTH_A_THREAD = 600_000


class DenseCell(MemoryCell):
    """Graves et al. 2014 (arXiv 1410.5401), as ``naive.py`` has it.

    Args:
        memory: the initial one, ``[B, N, W]``.
        weights: the initial ones, ``[B, H, N]``, read heads first.
        writers: V, how many of the heads write.
        shifts: S, how many moves a head may make.
    """

    def __init__(self, memory: Tensor, weights: Tensor, writers: int, shifts: int) -> None:
        self.state = (memory, weights)
        self.writers, self.shifts = writers, shifts

    def begin(self, plan: Plan, state: Sequence[Tensor], reads: Tensor) -> None:
        announce(compiled.forward, "the dense memory", 20)
        memory, weights = state
        batch, slots, width = memory.shape
        heads = weights.shape[1]
        self.plan = plan
        # Without a backward pass two states are enough: the one before and the one after.
        own, states = (plan.steps, plan.steps + 1) if plan.keep else (1, 2)
        fields = heads * (width + self.shifts + 3) + 2 * self.writers * width
        shapes = {
            "said": (own, batch, fields),
            "memory": (states, batch, width, slots),
            "weights": (states, batch, heads, slots),
            "similar": (own, batch, heads, slots),
            "content": (own, batch, heads, slots),
            "logs": (own, batch, heads, slots),
            "scales": (own, batch, slots),
        }
        self.history = History(shapes, plan.dtype)
        room = self.history.tensors
        room["memory"][0] = memory.transpose(1, 2)
        room["weights"][0] = weights
        self._said = room["said"].unbind(0)
        names = ("said", "memory", "weights", "similar", "content", "logs", "scales")
        self._arrays = tuple(self.history.arrays[name] for name in names)
        self._reads = reads.detach().numpy()
        work = slots * (width + 8) * heads
        self._least = max(1, WORTH_A_THREAD // work)

    def said(self, t: int) -> Tensor:
        return self._said[t if self.plan.keep else 0]

    def forward(self, t: int) -> None:
        own, before, after = (t, t, t + 1) if self.plan.keep else (0, t & 1, 1 - (t & 1))
        tail = (self._reads, self.writers, self.shifts)
        where = (t, own, before, after, self.plan.valid)
        share(compiled.forward, self.plan.batch, *where, *self._arrays, *tail, least=self._least)

    def last(self) -> tuple[Tensor, ...]:
        at = self.plan.steps if self.plan.keep else self.plan.steps & 1
        room = self.history.tensors
        return room["memory"][at].transpose(1, 2).clone(memory_format=torch.contiguous_format), room[
            "weights"
        ][at].clone()

    def begin_backward(self, on_last: Sequence[Tensor | None]) -> Any:
        memory, weights = self.history.tensors["memory"][0], self.history.tensors["weights"][0]
        on_memory, on_weights = torch.zeros_like(memory), torch.zeros_like(weights)
        if on_last[0] is not None:
            on_memory.copy_(on_last[0].transpose(1, 2))
        if on_last[1] is not None:
            on_weights.copy_(on_last[1])
        return on_memory, on_weights, (on_memory.numpy(), on_weights.numpy())

    def backward(self, carried: Any, t: int, on_reads: Tensor, on_said: Tensor) -> None:
        ons = (*carried[2], on_reads.numpy(), on_said.numpy())
        sizes = (self.writers, self.shifts)
        where = (t, self.plan.valid)
        share(compiled.backward, self.plan.batch, *where, *self._arrays, *ons, *sizes, least=self._least // 2)

    def end_backward(self, carried: Any, needed: Sequence[bool]) -> list[Tensor | None]:
        on_memory, on_weights, _ = carried
        return [on_memory.transpose(1, 2) if needed[0] else None, on_weights if needed[1] else None]
