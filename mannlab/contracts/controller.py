"""What a controller is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic

import torch
from torch import Tensor, nn

from mannlab.contracts.states import State, cut, hold, pick

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import ControllerCell


class Controller(nn.Module, ABC, Generic[State]):
    """The part that computes: a network that carries a state from step to step.

    The first, positional argument of a subclass is ``input_size``; its options are keyword-only.

    Attributes:
        output_size: width of ``h``.
        memory_blocks: places inside that want a memory layer each; then there is none behind the controller.
        segment: hear and tell a memory with a state once per so many steps.
    """

    output_size: int
    memory_blocks: Sequence[int] = ()
    segment: int = 1

    def progress(self, state: State) -> Tensor:
        """How many real steps led to a state, ``[B]``; wanted of those with segments."""
        raise NotImplementedError

    def host(self, make: Callable[[int], nn.Module]) -> None:
        """Take memory in, at the places that ``memory_blocks`` names.

        Args:
            make: makes a layer of its own for each, given the width of what it is to work on; the layer takes
                ``x[B, T, width]`` and ``valid[B, T]`` (or None) to ``[B, T, width]``.
        """
        raise NotImplementedError

    @abstractmethod
    def init_state(self, batch: int) -> State:
        """The state before the first step of ``batch`` sequences."""

    @abstractmethod
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``x[B, input_size]`` to ``h[B, output_size]`` and the next state."""

    def step(self, x: Tensor, state: State, valid: Tensor | None = None) -> tuple[Tensor, State]:
        """:meth:`forward`, holding the state where ``valid[B]`` is 0."""
        h, new = self.forward(x, state)
        return h, new if valid is None else hold(valid, new, state)

    def detach(self, state: State) -> State:
        """The same state, cut off from the graph (see ``Memory.detach``)."""
        detached: State = cut(state)
        return detached

    def reorder(self, state: State, rows: Tensor) -> State:
        """As ``Memory.reorder``."""
        picked: State = pick(state, rows)
        return picked

    def fused(self, state: State) -> tuple[ControllerCell, Callable[[Sequence[Tensor]], State]] | None:
        """As ``Memory.fused``."""
        return None

    def sequence(self, x: Tensor, state: State, valid: Tensor | None = None) -> tuple[Tensor, State]:
        """Many steps: ``x[B, T, input_size]`` to ``h[B, T, output_size]`` and the last state.

        The default loops over :meth:`step`; override it where time can run in parallel.
        """
        outputs = []
        for t in range(x.shape[1]):
            h, state = self.step(x[:, t], state, None if valid is None else valid[:, t])
            outputs.append(h)
        return torch.stack(outputs, dim=1), state
