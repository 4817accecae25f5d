"""Repeat copy: say a sequence of random bits as often as asked (Graves et al. 2014, section 4.2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mannlab.contracts import Batch, Bits, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.errors import at_least
from mannlab.registry import register
from mannlab.scoring import bit_score
from mannlab.tasks._levels import check_range, sized_splits


@register("task", "repeat_copy")
class RepeatCopy(Task):
    """Say a sequence of random bit vectors as often as asked, then an end marker (Graves et al. 2014, 4.2).

    The stream is the sequence; a step with a delimiter and, on a channel of its own, the number of repeats;
    then silence while the answer is given: the sequence so many times over, and one step more, at which the
    last output bit, the end marker, is 1 (it is 0 at all steps before). Lengths and repeats are uniform in
    their ranges, independently. The number of repeats is normalised to mean 0 and variance 1 over the range
    of training; the delimiter tells a number that happens to be 0 from silence.

    Args:
        bits: width of each vector.
        min_length: shortest training sequence.
        max_length: longest training sequence.
        min_repeats: fewest repeats in training.
        max_repeats: most repeats in training.
        lengths: lengths at which the trained model is also tested, each with max_repeats repeats.
        repeats: numbers of repeats at which it is also tested, each with sequences of max_length.
        bucket: this many consecutive sequences share length and repeats, so that a batch of that size
            carries no padding; 1 draws each on its own.
        val_sequences: sequences in the validation set.
        test_sequences: sequences in the test set at trained sizes.
        curriculum: lengths and repeats up to 2 at first (or the smallest sizes), and both to twice as many
            whenever training sequences cost less than this, in bits for each bit asked; lengths end at
            max_length, repeats at max_repeats; true: 0.1; or a mapping with any of threshold, start (2), max
            (null: the larger of both) and window (256 sequences, over which the mean is taken); null or
            false: no curriculum.
    """

    tested = frozenset({"lengths", "repeats", "test_sequences"})
    objective = Objective("cost_bits_per_sequence", "min", solved=0.1, shown="bit_errors_per_sequence")

    def __init__(
        self,
        *,
        bits: int = 8,
        min_length: int = 1,
        max_length: int = 10,
        min_repeats: int = 1,
        max_repeats: int = 10,
        lengths: list[int] | None = None,
        repeats: list[int] | None = None,
        bucket: int = 4,
        val_sequences: int = 640,
        test_sequences: int = 640,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.lengths = [5, 10, 20] if lengths is None else lengths
        self.repeats = [5, 10, 20] if repeats is None else repeats
        counts = {"bits": bits, "min_length": min_length, "min_repeats": min_repeats, "bucket": bucket}
        counts |= {"val_sequences": val_sequences, "test_sequences": test_sequences}
        counts |= {"lengths": min([1, *self.lengths]), "repeats": min([1, *self.repeats])}
        at_least("task", {key: (value, 1) for key, value in counts.items()})
        check_range("length", min_length, max_length)
        check_range("repeats", min_repeats, max_repeats)
        self.curriculum, self.least_size = curriculum, max(min_length, min_repeats)
        self.last_ceiling = max(max_length, max_repeats)
        self.first_ceiling = min(max(2, self.least_size), self.last_ceiling)
        self.bits, self.bucket = bits, bucket
        self.min_length, self.max_length = min_length, max_length
        self.min_repeats, self.max_repeats = min_repeats, max_repeats
        self.val_sequences, self.test_sequences = val_sequences, test_sequences
        self.spec = StreamSpec({"x": Vector(bits + 2)}, Bits(bits + 1))

    @property
    def trained_size(self) -> dict[str, int]:
        return {"length": self.max_length, "repeats": self.max_repeats}

    def splits(self, stage: str) -> list[Split]:
        levels = [("length", self.lengths, self.max_length), ("repeats", self.repeats, self.max_repeats)]
        return sized_splits(stage, self.val_sequences, self.test_sequences, *levels)

    def sizes(
        self, split: Split, draws: Draws, start: int, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Length and number of repeats of each sequence, ``int64[count]`` each."""
        if split.level is None:
            longest, most = self._largest(split)
            return (
                draws.integers(start, count, self.min_length, longest, "length", self.bucket),
                draws.integers(start, count, self.min_repeats, most, "repeats", self.bucket),
            )
        longer = split.label.startswith("length")
        length, repeats = (split.level, self.max_repeats) if longer else (self.max_length, split.level)
        return np.full(count, length), np.full(count, repeats)

    def _largest(self, split: Split) -> tuple[int, int]:
        """The longest sequence and the most repeats of a split at trained sizes."""
        ceiling = split.ceiling or max(self.max_length, self.max_repeats)
        return min(ceiling, self.max_length), min(ceiling, self.max_repeats)

    def normalised(self, repeats: NDArray[np.int64]) -> NDArray[np.float64]:
        """Numbers of repeats as the model is shown them: mean 0, variance 1 over the range of training."""
        values = self.max_repeats - self.min_repeats + 1
        deviation = math.sqrt((values**2 - 1) / 12) or 1.0
        return (repeats - (self.min_repeats + self.max_repeats) / 2) / np.float64(deviation)

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        lengths, repeats = self.sizes(split, draws, start, count)
        limit = self._largest(split)[0] if split.level is None else int(lengths.max())
        words = draws.bits(start, count, limit * self.bits, "bits").reshape(count, limit, self.bits)
        rows, ends = np.arange(count), lengths * (repeats + 1) + 1
        steps = np.arange(int(ends.max()) + 1)[None]
        length, end = lengths[:, None], ends[:, None]
        x = np.zeros((count, steps.shape[1], self.bits + 2), np.float32)
        y = np.zeros((*x.shape[:2], self.bits + 1), np.float32)
        row, step = np.nonzero(steps < length)
        x[row, step, : self.bits] = words[row, step]
        x[rows, lengths, self.bits] = 1
        x[rows, lengths, self.bits + 1] = self.normalised(repeats)
        row, step = np.nonzero((steps > length) & (steps < end))
        y[row, step, : self.bits] = words[row, (step - lengths[row] - 1) % lengths[row]]
        y[rows, ends, self.bits] = 1
        scored = torch.from_numpy(((steps > length) & (steps <= end)).astype(np.float32))
        valid = None
        if ends.min() < ends.max():
            valid = torch.from_numpy((steps <= end).astype(np.float32))
        return Batch({"x": torch.from_numpy(x)}, torch.from_numpy(y), scored, valid)

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """As for copy, and ``end_marker_errors_per_sequence``: steps at which the end marker is wrong."""
        score = bit_score(logits, batch)
        with torch.no_grad():
            wrong = ((logits[..., -1] > 0) != (batch.targets[..., -1] > 0.5)) & batch.scored.bool()
        count = score.metrics["bit_errors_per_sequence"][1]
        return Score(score.loss, score.metrics | {"end_marker_errors_per_sequence": (wrong.sum(), count)})
