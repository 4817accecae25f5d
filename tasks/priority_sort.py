"""Priority sort: name the vectors of highest priority, in order (Graves et al. 2014, section 4.5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mannlab.contracts import Batch, Bits, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.errors import at_least, require
from mannlab.registry import register
from mannlab.scoring import bit_score
from mannlab.tasks._levels import check_range, sized_splits


@register("task", "priority_sort")
class PrioritySort(Task):
    """Name the vectors of highest priority, the highest first (Graves et al. 2014, section 4.5).

    The stream is random bit vectors, each with its priority, uniform in [-1, 1], on a channel of its own;
    a delimiter; then silence while the answer is given. As in the paper, 16 of 20 are asked by default;
    of more or fewer vectors, as many in proportion (at least one).

    Args:
        bits: width of each vector.
        min_items: fewest vectors in training.
        max_items: most vectors in training.
        answers: how many of max_items are asked.
        items: numbers of vectors at which the trained model is also tested, each on its own.
        bucket: this many consecutive sequences have equally many vectors, so that a batch of that size
            carries no padding; 1 draws each on its own.
        val_sequences: sequences in the validation set.
        test_sequences: sequences in the test set at trained sizes.
        curriculum: up to max_items vectors at first, and up to twice as many whenever training sequences
            cost less than this, in bits for each bit asked; true: 0.1; or a mapping with any of threshold,
            start (instead of max_items; not below min_items), max (null: any number) and window (256
            sequences, over which the mean is taken); null or false: no curriculum.
    """

    tested = frozenset({"items", "test_sequences"})
    objective = Objective("cost_bits_per_sequence", "min", solved=0.1, shown="bit_errors_per_sequence")

    def __init__(
        self,
        *,
        bits: int = 8,
        min_items: int = 20,
        max_items: int = 20,
        answers: int = 16,
        items: list[int] | None = None,
        bucket: int = 4,
        val_sequences: int = 640,
        test_sequences: int = 640,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.curriculum, self.least_size, self.first_ceiling = curriculum, min_items, max_items
        self.items = [10, 20, 25, 30, 40] if items is None else items
        counts = {"bits": bits, "min_items": min_items, "answers": answers, "bucket": bucket}
        counts |= {"val_sequences": val_sequences, "test_sequences": test_sequences}
        counts["items"] = min([1, *self.items])
        at_least("task", {key: (value, 1) for key, value in counts.items()})
        check_range("items", min_items, max_items)
        require(
            answers <= max_items,
            f"task.answers: {answers} is more than task.max_items={max_items}.",
            "Ask for at most all of them.",
        )
        self.bits, self.bucket, self.answers = bits, bucket, answers
        self.min_items, self.max_items = min_items, max_items
        self.val_sequences, self.test_sequences = val_sequences, test_sequences
        self.spec = StreamSpec({"x": Vector(bits + 2)}, Bits(bits))

    def splits(self, stage: str) -> list[Split]:
        level = ("items", self.items, self.max_items)
        return sized_splits(stage, self.val_sequences, self.test_sequences, level)

    def item_counts(self, split: Split, draws: Draws, start: int, count: int) -> NDArray[np.int64]:
        """Number of vectors of each sequence, ``int64[count]``."""
        if split.level is not None:
            return np.full(count, split.level)
        most = split.ceiling or self.max_items
        return draws.integers(start, count, self.min_items, most, "items", self.bucket)

    def asked_of(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of so many vectors are asked: ``answers`` of max_items, rounded, at least one."""
        return np.maximum(1, (2 * items * self.answers + self.max_items) // (2 * self.max_items))

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        items = self.item_counts(split, draws, start, count)
        asked = self.asked_of(items)
        most, limit = int(items.max()), split.level or split.ceiling or self.max_items
        drawn = draws.bits(start, count, limit * self.bits, "bits")
        words = drawn.reshape(count, limit, self.bits)[:, :most]
        # In the precision that the model sees, so that what looks equal is equal.
        priorities = (2 * draws.uniform(start, count, limit, "priorities") - 1).astype(np.float32)[:, :most]
        present = np.arange(most)[None] < items[:, None]
        order = np.argsort(np.where(present, -priorities, np.inf), axis=1, kind="stable")

        rows, last = np.arange(count), (items + asked)[:, None]
        steps = np.arange(int(last.max()) + 1)[None]
        x = np.zeros((count, steps.shape[1], self.bits + 2), np.float32)
        y = np.zeros((*x.shape[:2], self.bits), np.float32)
        x[:, :most, : self.bits] = words * present[..., None]
        x[:, :most, self.bits] = priorities * present
        x[rows, items, self.bits + 1] = 1
        scored = (steps > items[:, None]) & (steps <= last)
        row, step = np.nonzero(scored)
        y[row, step] = words[row, order[row, step - items[row] - 1]]
        valid = None
        if items.min() < most:
            valid = torch.from_numpy((steps <= last).astype(np.float32))
        return Batch(
            {"x": torch.from_numpy(x)},
            torch.from_numpy(y),
            torch.from_numpy(scored.astype(np.float32)),
            valid,
        )

    def score(self, logits: Tensor, batch: Batch) -> Score:
        return bit_score(logits, batch)
