"""Looking on while a memory works."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from mannlab.contracts import Memory

Trace = dict[str, list[Tensor]]


class Watch(Protocol):
    """What is shown the steps of a memory; it changes nothing."""

    def step(
        self,
        memory: Memory[Any],
        interface: Tensor | None,
        state: Any,
        valid: Tensor | None,
        times: int = 1,
    ) -> None:
        """A step was made.

        Args:
            memory: whose.
            interface: what it heard, ``[B, I]``; None: nothing, the state is as it was.
            state: after the step.
            valid: ``[B]``, 1 where the step was a real one; None: everywhere.
            times: for how many time steps this state stands.
        """

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        """Many steps are to be made from ``state``, which the watch may use up: ``interface[B, T, I]``."""


class Traced:
    """Appends what a memory shows of each step to lists by title (see ``Memory.trace``)."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def step(
        self,
        memory: Memory[Any],
        interface: Tensor | None,
        state: Any,
        valid: Tensor | None,
        times: int = 1,
    ) -> None:
        for title, weights in memory.trace(state).items():
            self.trace.setdefault(title, []).extend([weights.detach()] * times)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        for title, weights in memory.trace_sequence(interface, state, valid).items():
            self.trace.setdefault(title, []).extend(weights.detach().unbind(1))


def watching(trace: Trace | Watch | None) -> Watch | None:
    """A dict that is to be filled as a watch; anything else as it is."""
    return Traced(trace) if isinstance(trace, dict) else trace
