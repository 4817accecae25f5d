"""Running a controller and a memory over time: step by step, or whole sequences in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mannlab.contracts import Controller, Memory, hold
from mannlab.kernels.deferred import stepper

Trace = dict[str, list[Tensor]]
# As ``Memory.step``.
Advance = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]


class Watch:
    """What is told of every step of a memory as it is made: puts what the memory shows into a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def step(self, memory: Memory[Any], state: Any, times: int = 1) -> None:
        """A step led to ``state``, which holds for ``times`` steps of the sequence; not to be used up."""
        for title, weights in memory.trace(state).items():
            self.trace.setdefault(title, []).extend([weights.detach()] * times)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        """All the steps of ``interface[B, T, I]`` are about to be made from ``state``, not to be used up."""
        shown = memory.trace_sequence(interface, memory.snapshot(state), valid)
        for title, weights in shown.items():
            self.trace.setdefault(title, []).extend(weights.detach().unbind(1))


def watching(trace: Trace | Watch | None) -> Watch | None:
    """What is to be told of the steps, if anything is."""
    return Watch(trace) if isinstance(trace, dict) else trace


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
    trace: Trace | Watch | None = None,
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
        trace: if given, what the memory shows of each step is appended, by title; or what is told of steps.
        advance: makes the memory's steps; None: the memory.

    Returns:
        ``h[B, T, C]``, ``reads[B, T, read_size]`` and the last state.
    """
    hidden, read_out = [], []
    speak, step, watch = stepper(interface), advance or memory.step, watching(trace)
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
            watch.step(memory, remembered)
    return torch.stack(hidden, 1), torch.stack(read_out, 1), RunState(controlled, remembered, reads)


def parallel(
    controller: Controller[Any],
    memory: Memory[Any],
    interface: Callable[[Tensor], Tensor],
    x: Tensor,
    state: RunState,
    valid: Tensor | None = None,
    trace: Trace | Watch | None = None,
) -> tuple[Tensor, Tensor, RunState]:
    """The controller over the whole sequence, then the memory; reads are not fed back."""
    hidden, controlled = controller.sequence(x, state.controller, valid)
    said = interface(hidden)
    watch = watching(trace)
    if watch is not None:
        watch.sequence(memory, said, state.memory, valid)
    reads, remembered = memory.sequence(said, state.memory, valid)
    return hidden, reads, RunState(controlled, remembered, state.reads)
