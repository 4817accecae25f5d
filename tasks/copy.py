"""Copy: repeat a sequence of random bits from memory (Graves et al. 2014, section 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mannlab.contracts import Batch, Bits, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.errors import at_least
from mannlab.registry import register
from mannlab.scoring import bit_score
from mannlab.tasks._levels import check_range, sized_splits


@register("task", "copy")
class Copy(Task):
    """Repeat a sequence of random bit vectors after a delimiter (Graves et al. 2014, section 4.1).

    The stream is the sequence, a delimiter on a channel of its own, then silence while the answer is
    given. Lengths are uniform in [min_length, max_length].

    Args:
        bits: width of each vector.
        min_length: shortest training sequence.
        max_length: longest training sequence.
        lengths: longer lengths at which the trained model is also tested, each on its own.
        bucket: this many consecutive sequences share one length, so that a batch of that size carries
            no padding; 1 draws every length independently.
        val_sequences: sequences in the validation set.
        test_sequences: sequences in each test set.
        curriculum: lengths up to max_length at first, and to twice the length whenever training sequences
            cost less than this, in bits for each bit asked; true: 0.1; or a mapping with any of threshold,
            start (instead of max_length), max (null: any length) and window (256 sequences, over which the
            mean is taken); null or false: no curriculum.
    """

    tested = frozenset({"lengths", "test_sequences"})
    objective = Objective("cost_bits_per_sequence", "min", solved=0.1, shown="bit_errors_per_sequence")

    def __init__(
        self,
        *,
        bits: int = 8,
        min_length: int = 1,
        max_length: int = 20,
        lengths: list[int] | None = None,
        bucket: int = 4,
        val_sequences: int = 640,
        test_sequences: int = 640,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.curriculum, self.least_size, self.first_ceiling = curriculum, min_length, max_length
        self.lengths = [10, 20, 30, 50, 120] if lengths is None else lengths
        counts = {"bits": bits, "min_length": min_length, "bucket": bucket}
        counts |= {"val_sequences": val_sequences, "test_sequences": test_sequences}
        counts["lengths"] = min([1, *self.lengths])
        at_least("task", {key: (value, 1) for key, value in counts.items()})
        check_range("length", min_length, max_length)
        self.bits, self.min_length, self.max_length, self.bucket = bits, min_length, max_length, bucket
        self.val_sequences, self.test_sequences = val_sequences, test_sequences
        self.spec = StreamSpec({"x": Vector(bits + 1)}, Bits(bits))

    def splits(self, stage: str) -> list[Split]:
        level = ("length", self.lengths, self.max_length)
        return sized_splits(stage, self.val_sequences, self.test_sequences, level)

    def sequence_lengths(self, split: Split, draws: Draws, start: int, count: int) -> np.ndarray:
        """Length of each sequence, ``int64[count]``."""
        if split.level is not None:
            return np.full(count, split.level)
        longest = split.ceiling or self.max_length
        return draws.integers(start, count, self.min_length, longest, "length", self.bucket)

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        lengths = self.sequence_lengths(split, draws, start, count)
        longest = int(lengths.max())
        limit = split.level or split.ceiling or self.max_length
        words = draws.bits(start, count, limit * self.bits, "bits").reshape(count, limit, self.bits)
        steps = np.arange(2 * longest + 1)
        given = steps[None] < lengths[:, None]
        asked = (steps[None] > lengths[:, None]) & (steps[None] <= 2 * lengths[:, None])
        x = np.zeros((count, len(steps), self.bits + 1), np.float32)
        y = np.zeros((count, len(steps), self.bits), np.float32)
        real = np.arange(longest)[None] < lengths[:, None]
        x[given, : self.bits] = y[asked] = words[:, :longest][real]
        x[np.arange(count), lengths, self.bits] = 1
        valid = None
        if lengths.min() < longest:
            valid = torch.from_numpy((steps[None] <= 2 * lengths[:, None]).astype(np.float32))
        scored = torch.from_numpy(asked.astype(np.float32))
        return Batch({"x": torch.from_numpy(x)}, torch.from_numpy(y), scored, valid)

    def score(self, logits: Tensor, batch: Batch) -> Score:
        return bit_score(logits, batch)
