"""The model: a controller and a memory, joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mannlab.contracts import Controller, Memory, StreamSpec, Task
from mannlab.errors import ConfigError, choices, require
from mannlab.model import backend as backends
from mannlab.model.encoders import TOKEN_WIDTH, StreamEncoder
from mannlab.model.graphs import Graphs
from mannlab.model.heads import Head
from mannlab.model.hosted import MemoryLayer
from mannlab.model.interface import interface_layer
from mannlab.model.recompute import pack, recomputed
from mannlab.model.unroll import RunState, parallel
from mannlab.model.watch import Trace, Watch, watching
from mannlab.registry import build_from, options

READOUTS = ("both", "reads")


class MANN(nn.Module):
    """A memory-augmented neural network: encoder, controller, interface, memory, readout.

    Args:
        controller: ``{"name": ..., options}``.
        memory: ``{"name": ..., options}``.
        spec: what comes in and what is asked.
        feedback: feed the reads of step t-1 to the controller at step t, which makes time run step by
            step; None: for memories that carry a state from step to step, unless they say otherwise
            (``Memory.feeds_back``).
        backend: what runs steps that feed back: ``eager`` (torch, one by one), ``compiled`` (the same with
            the memory's step compiled by torch), ``graphs`` (the same as eager, whole sequences recorded as
            CUDA graphs), ``fused`` (for memories and controllers that have such a form: on CPUs one node for
            the whole sequence; on GPUs the memory's step as one kernel, and graphs) or ``auto`` (fused where
            it can be, else eager).
        checkpoint_every: of steps that feed back, keep the state after every so many and make their history
            again when the backward pass comes to it: less memory for long sequences, a third more time.
            About the square root of the length is best. None: keep all.
        embedding_width: numbers for each symbol of a channel of tokens.
        interface: what brings what the controller says to the memory: ``linear``, a layer of weights; or
            ``direct``, nothing: the controller says just what the memory takes in, and is as wide.
        interface_gain: how many times as large as usual the weights of that layer start: what a memory is
            addressed by then differs more from step to step.
        tied_embeddings: score each symbol of the answer by its own embedding (see :class:`Head`).
        readout: what answers are made of: ``both`` what the controller says and what the memory reads, or the
            ``reads`` alone.
        dropout: share of the encoded input, and of what the answer is made of, dropped in training; at no
            step of what controller and memory carry on (Zaremba et al. 2014, arXiv 1409.2329).

    Raises:
        ConfigError: from the registry or the components.
    """

    def __init__(
        self,
        controller: Mapping[str, Any],
        memory: Mapping[str, Any],
        spec: StreamSpec,
        *,
        feedback: bool | None = None,
        backend: str = "auto",
        checkpoint_every: int | None = None,
        embedding_width: int = TOKEN_WIDTH,
        tied_embeddings: bool = False,
        interface: Literal["linear", "direct"] = "linear",
        interface_gain: float = 1.0,
        readout: Literal["both", "reads"] = "both",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(0 <= dropout < 1, f"model.dropout: {dropout} is not allowed.", "It must be in [0, 1).")
        self.encoder = StreamEncoder(spec, embedding_width, tied_embeddings)
        first: Memory[Any] = build_from("memory", memory)
        hosts = bool(controller.get("memory_blocks"))
        # Behind a controller that has it inside there is none.
        self.memory: Memory[Any] = build_from("memory", {"name": "none"}) if hosts else first
        usual = self.memory.stateful and self.memory.feeds_back
        self.stepwise = bool(usual if feedback is None else feedback and self.memory.read_size > 0)
        fed_back = self.memory.read_size if self.stepwise else 0
        self.controller: Controller[Any] = build_from(
            "controller", controller, self.encoder.output_size + fed_back
        )
        require(
            self.controller.segment == 1 or self.stepwise or not self.memory.stateful,
            f"controller.segment: {self.controller.segment} is not allowed with memory={memory['name']}.",
            "It is not fed back, so all its steps are taken at once: use controller.segment=1, or "
            "model.feedback=true.",
        )
        self.hosted: list[Memory[Any]] = []
        if hosts:
            self._host(first, memory, interface_gain)
        self.backend = backend
        backends.check(backend, self.controller, self.memory, interface)
        self.graphs = Graphs()
        self.checkpoint_every = checkpoint_every
        if checkpoint_every is not None:
            self._check_recomputing(checkpoint_every)
        # Not LazyLinear or None: a zero-wide interface keeps every memory on the same path.
        said = self.controller.output_size
        self.interface = interface_layer(said, self.memory, interface, interface_gain)
        tied = self.encoder.tied_to(spec.target) if tied_embeddings else None
        require(
            readout in READOUTS,
            f"model.readout: there is no '{readout}'.",
            choices(readout, READOUTS, "readouts"),
        )
        require(
            readout == "both" or self.memory.read_size > 0,
            f"model.readout: {readout} is not allowed with memory={memory['name']}.",
            "Nothing is read behind the controller: use model.readout=both.",
        )
        self.readout = readout
        known = self.memory.read_size + (said if readout == "both" else 0)
        self.head = Head(known, spec.target, tied)
        self.drop = nn.Dropout(dropout)

    def _host(self, first: Memory[Any], config: Mapping[str, Any], gain: float) -> None:
        require(
            not first.stateful and first.read_size > 0,
            f"controller.memory_blocks: memory={config['name']} cannot be a layer of the controller.",
            "A layer sees whole sequences at once: use a memory that carries no state, such as product_key, "
            "or leave controller.memory_blocks empty.",
        )

        def make(width: int) -> MemoryLayer:
            other = first.sibling() or build_from("memory", config) if self.hosted else first
            self.hosted.append(other)
            return MemoryLayer(width, other, gain)

        self.controller.host(make)

    def _check_recomputing(self, every: int) -> None:
        require(
            every >= 1, f"model.checkpoint_every: {every} is not allowed.", "It must be at least 1, or null."
        )
        require(
            type(self.memory).snapshot is Memory.snapshot,
            f"model.checkpoint_every: {type(self.memory).__name__} cannot run its steps twice.",
            "It changes its memory in place and undoes that going backward, which takes little room already: "
            "leave model.checkpoint_every=null.",
        )

    def named_memories(self) -> list[tuple[Memory[Any], str]]:
        """All memories and a suffix that tells them apart, empty for the one behind the controller."""
        if not self.hosted:
            return [(self.memory, "")]
        numbers = self.controller.memory_blocks
        return [(memory, f"_block_{n}") for n, memory in zip(numbers, self.hosted, strict=True)]

    def init_state(self, batch: int, like: Tensor) -> RunState:
        """The state before the first step of ``batch`` sequences."""
        reads = self.memory.initial_reads(batch, like)
        return RunState(self.controller.init_state(batch), self.memory.init_state(batch), reads)

    def forward(
        self,
        inputs: dict[str, Tensor],
        valid: Tensor | None = None,
        *,
        state: RunState | None = None,
        trace: Trace | Watch | None = None,
    ) -> Tensor:
        """Logits for a batch of streams.

        Args:
            inputs: one tensor per channel, ``[B, T, ...]``.
            valid: ``[B, T]``, 1 for real steps; None if all are.
            state: where to start; None for the initial state.
            trace: a dict to be filled with what the memory shows of each step (see ``Memory.trace``), or
                what is to see each step itself.

        Returns:
            ``[B, T, size]`` for bits, ``[B, T, groups, count]`` for classes.
        """
        return self.run(inputs, valid, state=state, trace=trace)[0]

    def run(
        self,
        inputs: dict[str, Tensor],
        valid: Tensor | None = None,
        *,
        state: RunState | None = None,
        trace: Trace | Watch | None = None,
    ) -> tuple[Tensor, RunState]:
        """As :meth:`forward`, and the last state, so that a stream can be continued."""
        x = self.drop(self.encoder(inputs, valid))
        if state is None:
            state = self.init_state(x.shape[0], x)
        hidden, reads, state = self._all_steps(x, state, valid, watching(trace))
        return self._answer(hidden, reads), state

    def answers(self, inputs: dict[str, Tensor], valid: Tensor | None, asked: Tensor) -> Tensor:
        """The logits of some steps: those of :meth:`forward` at ``asked``, without making the others.

        Args:
            inputs: one tensor per channel, ``[B, T, ...]``.
            valid: ``[B, T]``, 1 for real steps; None if all are.
            asked: ``bool[B, T]``, the S steps.

        Returns:
            ``[S, size]`` for bits, ``[S, groups, count]`` for classes.
        """
        x = self.drop(self.encoder(inputs, valid))
        state = self.init_state(x.shape[0], x)
        if self.stepwise:
            hidden, reads, _ = self._all_steps(x, state, valid)
            reads = reads[asked]
        else:
            hidden, _ = self.controller.sequence(x, state.controller, valid)
            reads = self.memory.answers(self.interface(hidden), state.memory, valid, asked)
        return self._answer(hidden[asked], reads)

    def _answer(self, hidden: Tensor, reads: Tensor) -> Tensor:
        known = reads if self.readout == "reads" else torch.cat([hidden, reads], dim=-1)
        return self.head(self.drop(known))

    def _all_steps(
        self, x: Tensor, state: RunState, valid: Tensor | None, watch: Watch | None = None
    ) -> tuple[Tensor, Tensor, RunState]:
        every = self.checkpoint_every
        if every and self.stepwise and watch is None and torch.is_grad_enabled() and x.shape[1] > every:
            return self._recomputing(every, x, state, valid)
        return self._steps(x, state, valid, watch, self.graphs)

    def _steps(
        self,
        x: Tensor,
        state: RunState,
        valid: Tensor | None,
        watch: Watch | None = None,
        graphs: Graphs | None = None,
    ) -> tuple[Tensor, Tensor, RunState]:
        parts = (self.controller, self.memory, self.interface, x, state, valid)
        if not self.stepwise:
            return parallel(*parts, watch)
        return backends.run(self.backend, graphs, *parts, watch)

    def _recomputing(
        self, every: int, x: Tensor, state: RunState, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, RunState]:
        """As :meth:`_steps`, a part at a time, keeping the states between parts."""
        parts = (self.controller, self.memory, self.interface)
        weights = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
        buffers = [buffer for part in parts for buffer in part.buffers()]
        leaves, unpack = pack(state)
        # A part that ends inside a segment would cut it.
        every = -(-every // self.controller.segment) * self.controller.segment

        def run(x: Tensor, *rest: Tensor) -> list[Tensor]:
            real, given = (None, rest) if valid is None else (rest[0], rest[1:])
            hidden, reads, after = self._steps(x, unpack(given), real)
            return [hidden, reads, *pack(after)[0]]

        hiddens, readings = [], []
        for start in range(0, x.shape[1], every):
            part = slice(start, start + every)
            real = [] if valid is None else [valid[:, part]]
            hidden, reads, *leaves = recomputed(
                run, x[:, part], *real, *leaves, weights=weights, buffers=buffers
            )
            hiddens.append(hidden)
            readings.append(reads)
        return torch.cat(hiddens, 1), torch.cat(readings, 1), unpack(leaves)

    def detach(self, state: RunState) -> RunState:
        """A state to go on from without its history, after the backward pass of the steps that led to it.

        ::

            logits, state = model.run(part, state=state)
            loss(logits).backward()
            state = model.detach(state)
        """
        return RunState(
            self.controller.detach(state.controller), self.memory.detach(state.memory), state.reads.detach()
        )

    def reorder(self, state: RunState, rows: Tensor) -> RunState:
        """The state whose row i is row ``rows[i]`` of ``state`` (see ``Memory.reorder``)."""
        return RunState(
            self.controller.reorder(state.controller, rows),
            self.memory.reorder(state.memory, rows),
            state.reads.index_select(0, rows),
        )


def assemble(config: Mapping[str, Any]) -> tuple[MANN, Task]:
    """The model and the task that a configuration names.

    Args:
        config: ``{"controller": {...}, "memory": {...}, "task": {...}, "model": {...}}``, each of the
            first three with a ``name`` and options; ``model`` may be missing.

    Raises:
        ConfigError: an unknown name or option, a wrong type or an impossible size.
    """
    task: Task = build_from("task", config["task"])
    settings = dict(config.get("model") or {})
    known = options(MANN)
    for key in settings:
        if key not in known:
            raise ConfigError(f"model.{key}: there is no such option.", choices(key, known, "options"))
    model = MANN(config["controller"], config["memory"], task.spec, **settings)
    require(
        task.beam == 1 or model.memory.reorderable,
        f"task.beam: {task.beam} is not allowed with memory={config['memory'].get('name')}.",
        "It changes its memory in place, and cannot go on twice from one state: use task.beam=1.",
    )
    return model, task
