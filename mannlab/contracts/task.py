"""What a task is: samples, scores, and what is measured and drawn of a trained model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

from mannlab.contracts.streams import Batch, StreamSpec
from mannlab.draws import Draws
from mannlab.errors import ConfigError


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
