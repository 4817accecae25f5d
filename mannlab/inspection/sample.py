"""What there is to show of one sequence, in numpy: nothing here knows a model or a way to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """A line of the stream over T steps: cells, pictures or words.

    Attributes:
        title: what it is.
        texts: in words, one a step; empty where there is nothing.
        cells: ``[T, size]``, about 0 to 1, NaN where there is nothing; or None.
        images: ``uint8[T, height, width]``, 255 is ink; or None.
    """

    title: str
    texts: list[str]
    cells: Floats | None = None
    images: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Head:
    """Where one head looked.

    Attributes:
        title: such as ``read 1``.
        writes: whether it writes.
        weights: ``[T, S]``, on the slots that are shown.
        top_slots, top_weights: ``[T, K]``, the heaviest of all slots first.
    """

    title: str
    writes: bool
    weights: Floats
    top_slots: NDArray[np.int64]
    top_weights: Floats

    @property
    def scale(self) -> float:
        """What to draw darkest: 1, or the largest weight of a head that never looks at one slot alone."""
        most = float(self.weights.max(initial=0))
        return most if 0 < most < 0.25 or most > 1 else 1.0


@dataclass(frozen=True)
class Slots:
    """A memory over T steps.

    Attributes:
        title: empty for the memory behind the controller.
        count: N, all its slots.
        shown: ``int64[S]``, in order, those that are shown.
        names: of the S slots.
        heads: those that read, then those that write.
        rows: ``[T, S, W]``, what the slots hold after each step; None: see ``note``.
        fixed: whether nothing is written during a sequence.
        note: what is not shown, and why.
    """

    title: str
    count: int
    shown: NDArray[np.int64]
    names: list[str]
    heads: list[Head]
    rows: Floats | None = None
    fixed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One sequence as it went through a model.

    Attributes:
        facts: what was looked at, by title.
        first: number of the first step.
        inputs: what came in, one row a channel.
        target: what was asked.
        output: what was answered.
        scored: ``[T]``, where an answer counts.
        right: ``[T]``, whether it is right; False where none counts.
        sure: ``[T]``, the probability that the model gave its answer.
        metrics: of this sample alone, by name with its unit.
        memories: one for each memory with anything to show.
        segment: steps that share one step of the memory.
        note: why there is no memory to show.
    """

    facts: dict[str, str]
    inputs: list[Row]
    target: Row
    output: Row
    scored: Bools
    right: Bools
    sure: Floats
    metrics: dict[str, float]
    memories: list[Slots]
    first: int = 0
    segment: int = 1
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.scored)

    @property
    def rows(self) -> list[Row]:
        """All rows of the stream, from what came in to what was answered."""
        return [*self.inputs, self.target, self.output]

    @property
    def verdict(self) -> str:
        """How many answers were right."""
        return f"{int(self.right.sum())} of {int(self.scored.sum())} right"


def window(sample: Sample, first: int, last: int) -> Sample:
    """The steps from ``first`` to before ``last`` alone."""
    part = slice(first, last)
    return replace(
        sample,
        first=sample.first + first,
        inputs=[_row(row, part) for row in sample.inputs],
        target=_row(sample.target, part),
        output=_row(sample.output, part),
        scored=sample.scored[part],
        right=sample.right[part],
        sure=sample.sure[part],
        memories=[_slots(memory, part) for memory in sample.memories],
    )


def _row(row: Row, part: slice) -> Row:
    return replace(
        row,
        texts=row.texts[part],
        cells=None if row.cells is None else row.cells[part],
        images=None if row.images is None else row.images[part],
    )


def _slots(memory: Slots, part: slice) -> Slots:
    heads = [
        replace(
            head,
            weights=head.weights[part],
            top_slots=head.top_slots[part],
            top_weights=head.top_weights[part],
        )
        for head in memory.heads
    ]
    return replace(memory, heads=heads, rows=None if memory.rows is None else memory.rows[part])


def cut(text: str, room: int) -> str:
    """A text in at most ``room`` characters."""
    return text if len(text) <= room else f"{text[: max(1, room - 1)]}…"


def gaps(shown: Sequence[int] | NDArray[np.int64]) -> list[int]:
    """Indices of shown slots before which others were left out."""
    return [i for i in range(1, len(shown)) if shown[i] != shown[i - 1] + 1]
