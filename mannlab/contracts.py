"""The doors of the house: what a memory, a controller and a task are.

Shapes: ``B`` batch, ``T`` time, ``N`` slots, ``W`` word width, ``R`` read heads, ``I`` interface
width. Batch first everywhere.

Two rules hold for every component:

- *Padding comes last.* ``valid[B, T]`` is 1 for the real steps of a sequence, then 0; ``None`` means
  that every step is real. Where it is 0 the state is held, so padding never writes.
- *A state is used once.* A step may consume the state that it is given (a memory may change one big
  buffer in place), so whoever needs it again takes a :meth:`Memory.snapshot` first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from mannlab.draws import Draws
from mannlab.errors import ConfigError

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import ControllerCell, MemoryCell

State = TypeVar("State")


# ---------------------------------------------------------------------- streams


@dataclass(frozen=True)
class Vector:
    """A channel of real vectors, ``float[B, T, size]``."""

    size: int


@dataclass(frozen=True)
class Token:
    """A channel of symbols, ``int64[B, T]`` in [0, vocabulary)."""

    vocabulary: int


@dataclass(frozen=True)
class Bag:
    """A channel of several symbols a step, such as the words of a sentence, ``int64[B, T, size]``.

    Symbols are in [0, vocabulary), in their order; -1 fills up after the last one. The model learns a vector
    of ``width`` for each, and sums those of a step: weighted by their places if ``positions``, so that their
    order counts. With several ``embeddings`` it learns as many such vectors for each, whose sums lie side by
    side. They start with a standard deviation of ``deviation``.
    """

    vocabulary: int
    size: int
    width: int = 64
    positions: bool = True
    embeddings: int = 1
    deviation: float = 0.1


@dataclass(frozen=True)
class Image:
    """A channel of pictures, ``float[B, T, channels, height, width]`` in [0, 1].

    ``encoder`` is ``"flat"`` (the pixels as a vector) or ``"conv"`` (a small convolutional net).
    """

    height: int
    width: int
    channels: int = 1
    encoder: str = "flat"


@dataclass(frozen=True)
class Bits:
    """A target of independent bits, ``float[B, T, size]``; the model emits one logit a bit."""

    size: int


@dataclass(frozen=True)
class Classes:
    """A target of ``groups`` symbols, ``int64[B, T, groups]`` in [0, count).

    The model emits ``[B, T, groups, count]`` logits.
    """

    count: int
    groups: int = 1


@dataclass(frozen=True)
class StreamSpec:
    """What comes in at each step, by channel name, and what is asked."""

    inputs: Mapping[str, Vector | Token | Bag | Image]
    target: Bits | Classes


@dataclass(frozen=True)
class Batch:
    """Some sequences, padded at their ends to one length.

    Attributes:
        inputs: one tensor per channel of the spec, ``[B, T, ...]``.
        targets: ``[B, T, ...]`` as the spec's target says.
        scored: ``float[B, T]``, 1 where an answer is asked.
        valid: ``float[B, T]``, 1 for real steps, or None if every step is real.
        extra: anything else that the task's score or pictures want, ``[B, ...]`` each.
        continues: each sequence goes on where that of the batch before ended (see ``Task.continuous``).
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    scored: Tensor
    valid: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    continues: bool = False

    def __len__(self) -> int:
        return self.targets.shape[0]

    def apply(self, function: Any) -> Batch:
        """The same batch with ``function`` applied to every tensor."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, dict):
                changed[item.name] = {key: function(tensor) for key, tensor in value.items()}
            elif isinstance(value, Tensor):
                changed[item.name] = function(value)
        return replace(self, **changed)

    def to(self, device: Any, non_blocking: bool = True) -> Batch:
        """The same batch on ``device``."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for fast copies to a GPU."""
        return self.apply(lambda tensor: tensor.pin_memory())


# ---------------------------------------------------------------------- memory and controller


def hold(valid: Tensor, new: Any, old: Any) -> Any:
    """``new`` where ``valid[B]`` is 1, ``old`` elsewhere, through nested tuples of ``[B, ...]`` tensors."""
    if isinstance(new, Tensor):
        keep = valid.reshape(-1, *(1,) * (new.dim() - 1)).bool()
        return torch.where(keep, new, old)
    if isinstance(new, tuple):
        held = [hold(valid, n, o) for n, o in zip(new, old, strict=True)]
        return type(new)(*held) if hasattr(new, "_fields") else tuple(held)
    return new


def cut(state: Any) -> Any:
    """``state`` with its tensors detached, through nested tuples."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple):
        parts = [cut(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def pick(state: Any, rows: Tensor) -> Any:
    """``state`` with row ``rows[i]`` of each ``[B, ...]`` tensor as its row i, through nested tuples."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, tuple):
        parts = [pick(part, rows) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


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
    """

    interface_size: int
    interface_bias: bool = True
    read_size: int
    stateful: ClassVar[bool] = True
    feeds_back: ClassVar[bool] = True
    observing: bool = True
    reorderable: ClassVar[bool] = True
    slot_a_step: ClassVar[bool] = False

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


# ---------------------------------------------------------------------- task


@dataclass(frozen=True)
class Split:
    """A set of samples of a task.

    Attributes:
        name: ``"train"``, ``"val"`` or ``"test"``.
        samples: how many there are; None for an endless stream.
        level: the size at which to draw (a length, a number of items), or None for the trained sizes.
        ceiling: the largest size at which to draw, where a curriculum sets it.
        lanes: of a continuous task, how many sequences go on side by side.
        label: suffix in metric names, such as ``"length_30"``.
    """

    name: str
    samples: int | None = None
    level: int | None = None
    label: str = ""
    ceiling: int | None = None
    lanes: int = 1

    @property
    def stream(self) -> str:
        """Name of the split's own random stream."""
        return f"{self.name}_{self.label}" if self.label else self.name


@dataclass(frozen=True)
class Objective:
    """What a task is trained for.

    Attributes:
        metric: the metric (unit in its name) that picks the best checkpoint.
        mode: ``"min"`` or ``"max"``.
        solved: the value at which the task counts as solved, or None.
        shown: the metric that people watch, if it is another one.
    """

    metric: str
    mode: str = "min"
    solved: float | None = None
    shown: str | None = None

    @property
    def watched(self) -> str:
        """The metric to show while training."""
        return self.shown or self.metric


@dataclass(frozen=True)
class Score:
    """What a batch costs.

    Attributes:
        loss: scalar, nats, the mean over sequences (so that equal shares of a batch average to the whole).
        metrics: name (unit included) to ``(total, count)``; a metric is the sum of totals over a whole
            evaluation set divided by the sum of counts.
    """

    loss: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Continuation:
    """What a model said after a prompt.

    Attributes:
        tokens: without the token that ends it.
        score: its log-probability in nats, the end's included, divided by a power of the length.
        ended: False if the limit came first.
    """

    tokens: list[int]
    score: float
    ended: bool


class Generate(Protocol):
    """A trained model that continues sequences of tokens (see ``mannlab.model.decode``)."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        end: int,
        limits: Sequence[int],
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> list[Continuation]:
        """One continuation for each prompt.

        Args:
            prompts: tokens, at least one each.
            end: the token that ends a continuation.
            limits: most tokens of each, the end included.
            beam: how many continuations are kept while searching; 1: always the likeliest token.
            length_penalty: scores are divided by the length to this power; 0: not at all.
        """


@dataclass(frozen=True)
class Examination:
    """What a task found out about a model that answers freely.

    Attributes:
        metrics: by name with its unit.
        texts: Markdown for TensorBoard and the run's folder, by title.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class Task(ABC):
    """A stream of things that come in, and of answers that are asked.

    Attributes:
        spec: what comes in and what goes out.
        objective: the main metric.
        least_size: the smallest size of a training sample, for tasks that have a size.
        first_ceiling: the largest size at which a curriculum starts; setting it declares that the task
            has a size and heeds ``Split.ceiling``.
        last_ceiling: the largest that it can draw; None: any.
        curriculum: the option ``task.curriculum``: None or False: no curriculum; the cost under which the
            largest size doubles, in bits for each symbol asked; True: at ``easy``; or a mapping with any
            of threshold, start, max and window (see ``mannlab.training.curriculum.Plan``).
        easy: the threshold when none is given.
        picture_samples: how many samples :meth:`pictures` is given.
        continuous: sequences go on from batch to batch, and so does the model's state. Sample i is then in
            lane ``i % split.lanes`` and follows sample ``i - split.lanes``; the trainer sets the lanes of
            training, the task those of its other splits (whose samples are a multiple of them).
        beam: how many continuations its :meth:`examine` searches among.
        asks_few: :meth:`score` takes the logits of scored steps alone as well (``mannlab.scoring.answered``);
            then the trainer has the model make no others, which saves time where few steps are asked.
        fingerprint: changes when the symbols of the spec mean something else: old checkpoints do not fit.
        tested: names of the options that only say what is tested: a run may go on with others.
    """

    tested: ClassVar[frozenset[str]] = frozenset()
    spec: StreamSpec
    objective: Objective
    least_size: int = 1
    first_ceiling: int | None = None
    last_ceiling: int | None = None
    curriculum: bool | float | dict[str, Any] | None = None
    easy: float = 0.1
    picture_samples: int = 1
    continuous: bool = False
    beam: int = 1
    asks_few: bool = False
    fingerprint: str | None = None

    @classmethod
    def label(cls, options: Mapping[str, Any]) -> str:
        """The task's name in run folders; a task that picks its own data source says so here."""
        return str(options["name"])

    @property
    def trained_size(self) -> int | Mapping[str, int] | None:
        """The largest size of training samples where no curriculum sets it, or None.

        By kind (what comes before the number in the labels of splits with a level) where there are several:
        then a curriculum goes no further than each.
        """
        return self.first_ceiling

    def prepare(self) -> None:  # noqa: B027 - optional hook
        """Fetch or make the data; called once, before the first batch, and safe to call again."""

    @abstractmethod
    def splits(self, stage: str) -> list[Split]:
        """The sets of a stage: ``"train"`` (one, endless), ``"val"`` and ``"test"`` (main set first)."""

    @abstractmethod
    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        """Samples ``start`` to ``start + count - 1`` of a split; each depends on (draws, index) alone."""

    @abstractmethod
    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Loss and metrics of the model's logits (``[B, T, size]`` or ``[B, T, groups, count]``).

        With ``asks_few`` also of ``[S, ...]``, those of the S scored steps, in the order of
        ``batch.scored.bool()``.
        """

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """More metrics of a set, made of those of :meth:`score`, such as a perplexity."""
        return {}

    def pictures(self, logits: Tensor, batch: Batch) -> dict[str, Any]:
        """Matplotlib figures of a set's first sequences, by title; they take the place of the stream's."""
        return {}

    def traced_pictures(self, trace: Mapping[str, Tensor], batch: Batch) -> dict[str, Any]:
        """As :meth:`pictures`, of what the memory showed, ``[T, heads, N]`` by title (``Memory.trace``)."""
        return {}

    def examine(self, generate: Generate, split: Split, draws: Draws) -> Examination:
        """Measure what needs a model that answers without being told the right answer so far.

        Called at the end of each evaluation of a split, on every rank, all of which find the same.
        """
        return Examination()

    def predict(self, generate: Generate, texts: Sequence[str]) -> list[str]:
        """Answers to texts of a user's, one each (the command ``predict``).

        Raises:
            ConfigError: this task has no texts.
        """
        raise ConfigError(
            f"task: {type(self).__name__} has no texts to answer.",
            "Only runs of tasks such as translation can predict; eval measures any run.",
        )

    def spell(self, channel: str, symbol: int) -> str:
        """A symbol as people read it: of an input channel by its name, or of ``"target"``."""
        return str(symbol)

    def facts(self) -> dict[str, Any]:
        """Plain facts for the run's summary, such as which data source was used."""
        return {}
