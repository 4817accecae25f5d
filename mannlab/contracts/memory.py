"""What a memory is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts.states import State, cut, hold, pick

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import MemoryCell


class Heads(NamedTuple):
    """Where heads look: weights of some rows of a memory; the others have none.

    Attributes:
        weights: ``[..., heads, K]``, at least 0.
        slots: N.
        rows: ``int64``, as ``weights``: which rows, of [0, N), where one may stand twice. None: all, K = N.
    """

    weights: Tensor
    slots: int
    rows: Tensor | None = None


class Vitals(NamedTuple):
    """Signs of how a memory works; ``[B]`` or ``[B, T]`` comes first in every tensor.

    Attributes:
        heads: by what they do, such as ``"read"``.
        gauges: numbers in [0, 1] by name, with any further dimensions: gates, shares, how full it is.
    """

    heads: dict[str, Heads]
    gauges: dict[str, Tensor]


class Memory(nn.Module, ABC, Generic[State]):
    """A differentiable memory.

    Subclasses set ``interface_size`` and ``read_size``, and define :meth:`init_state` and
    :meth:`forward`. Activations of the interface's fields belong to the memory; the linear layer
    that makes the interface belongs to the model.

    Attributes:
        interface_size: ``I``, what the model must emit each step; the memory splits it into fields.
        interface_bias: False if adding a constant to the interface would change nothing.
        read_size: flat width of one step's reads, fed back to the controller at the next step.
        stateful: False if reads do not depend on earlier steps; then time runs in parallel.
        feeds_back: False if reads, though they depend on earlier steps, are not given to the controller
            unless ``model.feedback=true``: for memories whose ``sequence`` runs in parallel.
        observing: False while an evaluation runs steps that are not to be counted.
        reorderable: False if there is no :meth:`reorder`.
        slot_a_step: True if slots, as :meth:`trace_sequence` counts them, are the steps that wrote them.
        resizable: names of the options that say how much it holds; a run may go on with others while its
            weights fit.
    """

    interface_size: int
    interface_bias: bool = True
    read_size: int
    stateful: ClassVar[bool] = True
    feeds_back: ClassVar[bool] = True
    observing: bool = True
    reorderable: ClassVar[bool] = True
    slot_a_step: ClassVar[bool] = False
    resizable: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def init_state(self, batch: int) -> State:
        """The state before the first step of ``batch`` sequences."""

    @abstractmethod
    def forward(self, interface: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``interface[B, I]`` and a state to ``reads[B, read_size]`` and the next state."""

    def step(self, interface: Tensor, state: State, valid: Tensor | None = None) -> tuple[Tensor, State]:
        """:meth:`forward`, holding the state where ``valid[B]`` is 0.

        A memory that changes buffers in place overrides this, so that padding does not write.
        """
        old = state if valid is None else self.snapshot(state)
        reads, new = self.forward(interface, state)
        return reads, new if valid is None else hold(valid, new, old)

    def sequence(self, interface: Tensor, state: State, valid: Tensor | None = None) -> tuple[Tensor, State]:
        """Many steps: ``interface[B, T, I]`` to ``reads[B, T, read_size]`` and the last state."""
        reads = []
        for t in range(interface.shape[1]):
            read, state = self.step(interface[:, t], state, None if valid is None else valid[:, t])
            reads.append(read)
        return torch.stack(reads, dim=1), state

    def answers(self, interface: Tensor, state: State, valid: Tensor | None, asked: Tensor) -> Tensor:
        """The reads ``[S, read_size]`` of the S steps of :meth:`sequence` where ``asked[B, T]`` is true.

        For a memory that can leave out the others, and the last state, to override.
        """
        return self.sequence(interface, state, valid)[0][asked]

    def fused(self, state: State) -> tuple[MemoryCell, Callable[[Sequence[Tensor]], State]] | None:
        """This memory for whole sequences as one node on a CPU, from ``state``; None if it has no such form.

        Not inherited: a subclass may change what a step does, and says so itself.

        Returns:
            The cell (see ``mannlab.kernels.fused``), and what makes a state of its last tensors.
        """
        return None

    def on_gpu(self, state: State) -> Callable[[Tensor, State, Tensor | None], tuple[Tensor, State]] | None:
        """:meth:`step` by kernels made for a GPU, for states like this one; None if it has no such form.

        Not inherited, as :meth:`fused`. It neither waits for the device nor does anything but work on
        tensors, so that CUDA graphs can capture it. Reads of padding may be anything, without a gradient.
        """
        return None

    def sibling(self) -> Memory[State] | None:
        """Another memory like this one for another layer, sharing what is to be shared; None: nothing is."""
        return None

    def snapshot(self, state: State) -> State:
        """A copy of ``state`` that stays good when the original is consumed.

        The default serves purely functional memories, whose states may be used again as they are.
        """
        return state

    def detach(self, state: State) -> State:
        """The same state, cut off from the graph: for backpropagation through a part of the sequence.

        Call it after the backward pass of the steps so far. The default serves states that are nested
        tuples of tensors; a memory with buffers of its own makes the steps so far final.
        """
        detached: State = cut(state)
        return detached

    def reorder(self, state: State, rows: Tensor) -> State:
        """The state whose row i is row ``rows[i]`` (``int64``) of ``state``, which is not used again.

        A search among several continuations drops some and goes on twice from others. The default serves
        states that are nested tuples of ``[B, ...]`` tensors.

        Raises:
            ConfigError: a memory with buffers of its own has no such form.
        """
        picked: State = pick(state, rows)
        return picked

    def initial_reads(self, batch: int, like: Tensor) -> Tensor:
        """What the controller is given as reads at the first step, ``[B, read_size]``; zeros."""
        return like.new_zeros(batch, self.read_size)

    def metrics(self) -> dict[str, float]:
        """What to log of the steps since the last call, by name with its unit."""
        return {}

    def begin_evaluation(self) -> None:
        """A validation or a test begins."""

    def evaluation_metrics(self) -> dict[str, float]:
        """What to log of the steps since :meth:`begin_evaluation`, by name with its unit.

        In a distributed run every rank asks at the same time, and wants the same answer.
        """
        return {}

    def end_validation(self, loss: float) -> None:
        """A validation in the middle of training has ended; ``loss`` is that of the main split, in nats.

        For memories that train in phases. What changes here goes into the checkpoint of this validation, so
        a new phase must begin at the next step of training. Every rank is told the same.
        """

    def pictures(self) -> dict[str, Any]:
        """Matplotlib figures of the last evaluation, by title."""
        return {}

    def trace(self, state: State) -> dict[str, Tensor]:
        """What to draw of a state, by title, each ``[B, heads, N]`` with values in [0, 1]."""
        return {}

    def trace_sequence(
        self, interface: Tensor, state: State, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What to draw of the steps of :meth:`sequence`, by title, each ``[B, T, heads, N]`` in [0, 1].

        The default goes step by step, for :meth:`trace`; a memory whose states do not show what was read says
        it here.
        """
        shown: dict[str, list[Tensor]] = {}
        for t in range(interface.shape[1] if type(self).trace is not Memory.trace else 0):
            _, state = self.step(interface[:, t], state, None if valid is None else valid[:, t])
            for title, weights in self.trace(state).items():
                shown.setdefault(title, []).append(weights)
        return {title: torch.stack(steps, dim=1) for title, steps in shown.items()}

    def gauges(self, interface: Tensor, state: State) -> dict[str, Tensor]:
        """Numbers in [0, 1] that say how a step works, such as its gates, by name, ``[B, ...]`` each.

        Args:
            interface: what the memory heard in this step, ``[B, I]``.
            state: after the step.
        """
        return {}

    def vitals(self, interface: Tensor, state: State) -> Vitals:
        """Signs of how a step works, from what it heard and the state after it; see ``mannlab.model.health``.

        The default makes them of :meth:`trace` and :meth:`gauges`; a memory that looks at few of very many
        rows says here which they are.
        """
        heads = {
            title.removesuffix(" weights").replace(" ", "_"): Heads(weights, weights.shape[-1])
            for title, weights in self.trace(state).items()
        }
        return Vitals(heads, self.gauges(interface, state))

    def vitals_sequence(self, interface: Tensor, state: State, valid: Tensor | None = None) -> Vitals | None:
        """As :meth:`vitals`, of all steps of :meth:`sequence` at once; None: :meth:`vitals` step by step.

        For memories whose states do not show what was read.
        """
        return None

    def contents(self, state: State) -> dict[str, Tensor]:
        """What the memory holds, by title, ``[B, rows, width]`` each: for pictures and the projector."""
        rows = self.rows(state)
        return {} if rows is None else {"rows": rows}

    def row_labels(self, title: str) -> dict[str, list[str]]:
        """What else is known of the rows of :meth:`contents`, a label each, by the name of the column."""
        return {}

    def looks(self, interface: Tensor, state: State, valid: Tensor | None = None) -> dict[str, Heads]:
        """As :meth:`trace_sequence`, for memories with so many slots that only those looked at are named."""
        return {}

    def rows(self, state: State, slots: Tensor | None = None) -> Tensor | None:
        """What the slots hold, ``[B, N, W]``, or some of them alone; None: there is nothing to show.

        Args:
            state: is not used up.
            slots: ``int64[S]``; then the answer is ``[B, S, W]``.
        """
        return None

    def rows_sequence(
        self, interface: Tensor, state: State, slots: Tensor, valid: Tensor | None = None
    ) -> Tensor | None:
        """What ``slots`` (``int64[S]``) hold after each step of :meth:`sequence`, ``[B, T, S, W]``."""
        if type(self).rows is Memory.rows:
            return None
        held: list[Tensor] = []
        for t in range(interface.shape[1]):
            _, state = self.step(interface[:, t], state, None if valid is None else valid[:, t])
            rows = self.rows(state, slots)
            if rows is None:
                return None
            held.append(rows)
        return torch.stack(held, dim=1)
