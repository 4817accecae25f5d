"""Running a controller and a memory over time: step by step, or whole sequences in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mannlab.contracts import Controller, Memory, hold
from mannlab.kernels.deferred import stepper
from mannlab.model.watch import Watch

# As ``Memory.step``.
Advance = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]


class RunState(NamedTuple):
    """What is carried from step to step: both states and the last reads ``[B, read_size]``."""

    controller: Any
    memory: Any
    reads: Tensor


def stepwise(
    controller: Controller[Any],
    memory: Memory[Any],
    interface: Callable[[Tensor], Tensor],
    x: Tensor,
    state: RunState,
    valid: Tensor | None = None,
    watch: Watch | None = None,
    advance: Advance | None = None,
) -> tuple[Tensor, Tensor, RunState]:
    """Step by step: the reads of t-1 feed the controller at t.

    Args:
        controller: takes ``[x_t, reads]``.
        memory: any memory.
        interface: maps ``h[B, C]`` to ``[B, I]``.
        x: ``[B, T, E]``.
        state: where to start.
        valid: ``[B, T]`` or None.
        watch: if given, is shown each step.
        advance: makes the memory's steps; None: the memory.

    Returns:
        ``h[B, T, C]``, ``reads[B, T, read_size]`` and the last state.
    """
    hidden, read_out = [], []
    speak, step = stepper(interface), advance or memory.step
    controlled, remembered, reads = state
    for t, x_t in enumerate(x.unbind(1)):
        here = None if valid is None else valid[:, t]
        h, controlled = controller.step(torch.cat([x_t, reads], dim=-1), controlled, here)
        said = speak(h)
        new_reads, remembered = step(said, remembered, here)
        reads = new_reads if here is None else hold(here, new_reads, reads)
        hidden.append(h)
        read_out.append(reads)
        if watch is not None:
            watch.step(memory, said, remembered, here)
    return torch.stack(hidden, 1), torch.stack(read_out, 1), RunState(controlled, remembered, reads)


def parallel(
    controller: Controller[Any],
    memory: Memory[Any],
    interface: Callable[[Tensor], Tensor],
    x: Tensor,
    state: RunState,
    valid: Tensor | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, Tensor, RunState]:
    """The controller over the whole sequence, then the memory; reads are not fed back."""
    hidden, controlled = controller.sequence(x, state.controller, valid)
    said = interface(hidden)
    if watch is not None:
        watch.sequence(memory, said, memory.snapshot(state.memory), valid)
    reads, remembered = memory.sequence(said, state.memory, valid)
    return hidden, reads, RunState(controlled, remembered, state.reads)
