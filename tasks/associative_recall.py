"""Associative recall: given one item of a list, name the next (Graves et al. 2014, section 4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mannlab.contracts import Batch, Bits, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.errors import at_least, require
from mannlab.registry import register
from mannlab.scoring import bit_score
from mannlab.tasks._levels import check_range, sized_splits


@register("task", "associative_recall")
class AssociativeRecall(Task):
    """Given one item of a list, name the item that followed it (Graves et al. 2014, section 4.3).

    An item is ``item_length`` vectors of random bits. The stream is each item behind a delimiter,
    then the query between two query delimiters, then silence while the next item is answered. The
    two kinds of delimiter have a channel each.

    Args:
        bits: width of each vector.
        item_length: vectors in an item.
        min_items: fewest items in training.
        max_items: most items in training.
        items: numbers of items at which the trained model is also tested, each on its own.
        bucket: this many consecutive sequences have equally many items, so that a batch of that size
            carries no padding; 1 draws each on its own.
        val_sequences: sequences in the validation set.
        test_sequences: sequences in each test set.
        curriculum: items up to max_items at first, and up to twice as many whenever training sequences
            cost less than this, in bits for each bit asked; true: 0.1; or a mapping with any of threshold,
            start (instead of max_items), max (null: any number) and window (256 sequences, over which the
            mean is taken); null or false: no curriculum.
    """

    tested = frozenset({"items", "test_sequences"})
    objective = Objective("cost_bits_per_sequence", "min", solved=0.1, shown="bit_errors_per_sequence")

    def __init__(
        self,
        *,
        bits: int = 6,
        item_length: int = 3,
        min_items: int = 2,
        max_items: int = 6,
        items: list[int] | None = None,
        bucket: int = 4,
        val_sequences: int = 640,
        test_sequences: int = 640,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.curriculum, self.least_size, self.first_ceiling = curriculum, min_items, max_items
        self.items = [6, 10, 12, 15, 20] if items is None else items
        counts = {"bits": bits, "item_length": item_length, "bucket": bucket}
        counts |= {"val_sequences": val_sequences, "test_sequences": test_sequences}
        at_least("task", {key: (value, 1) for key, value in counts.items()})
        for key, value in {"min_items": min_items, "items": min([2, *self.items])}.items():
            require(
                value >= 2,
                f"task.{key}: {value} is not allowed.",
                "At least 2: an item and the one after it.",
            )
        check_range("items", min_items, max_items)
        self.bits, self.item_length, self.bucket = bits, item_length, bucket
        self.min_items, self.max_items = min_items, max_items
        self.val_sequences, self.test_sequences = val_sequences, test_sequences
        self.spec = StreamSpec({"x": Vector(bits + 2)}, Bits(bits))

    def splits(self, stage: str) -> list[Split]:
        level = ("items", self.items, self.max_items)
        return sized_splits(stage, self.val_sequences, self.test_sequences, level)

    def item_counts(self, split: Split, draws: Draws, start: int, count: int) -> np.ndarray:
        """Number of items of each sequence, ``int64[count]``."""
        if split.level is not None:
            return np.full(count, split.level)
        most = split.ceiling or self.max_items
        return draws.integers(start, count, self.min_items, most, "items", self.bucket)

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        counts = self.item_counts(split, draws, start, count)
        most, limit = int(counts.max()), split.level or split.ceiling or self.max_items
        length = self.item_length
        drawn = draws.bits(start, count, limit * length * self.bits, "bits")
        items = drawn.reshape(count, limit, length, self.bits)[:, :most]
        query = (draws.uniform(start, count, 1, "query")[:, 0] * (counts - 1)).astype(np.int64)
        rows = np.arange(count)

        period = length + 1
        x = np.zeros((count, most * period + period + length + 1, self.bits + 2), np.float32)
        y = np.zeros((*x.shape[:2], self.bits), np.float32)
        listed = x[:, : most * period].reshape(count, most, period, self.bits + 2)
        present = np.arange(most)[None] < counts[:, None]
        listed[:, :, 1:, : self.bits] = items * present[:, :, None, None]
        listed[:, :, 0, self.bits] = present

        ask = counts * period  # the step of the first query delimiter
        x[rows, ask, self.bits + 1] = x[rows, ask + period, self.bits + 1] = 1
        asked = np.zeros(x.shape[:2], np.float32)
        for k in range(length):
            x[rows, ask + 1 + k, : self.bits] = items[rows, query, k]
            y[rows, ask + period + 1 + k] = items[rows, query + 1, k]
            asked[rows, ask + period + 1 + k] = 1
        valid = None
        if counts.min() < most:
            steps = np.arange(x.shape[1])[None]
            valid = torch.from_numpy((steps <= (ask + period + length)[:, None]).astype(np.float32))
        return Batch({"x": torch.from_numpy(x)}, torch.from_numpy(y), torch.from_numpy(asked), valid)

    def score(self, logits: Tensor, batch: Batch) -> Score:
        return bit_score(logits, batch)
