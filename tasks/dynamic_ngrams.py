"""Dynamic n-grams: predict bits of a source, another in every sequence (Graves et al. 2014, section 4.4)."""

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


@register("task", "dynamic_ngrams")
class DynamicNgrams(Task):
    """Predict the next bit of an n-gram source, another in every sequence (Graves et al. 2014, section 4.4).

    For each sequence a table is drawn: for each context of ``order - 1`` bits the probability that a 1
    follows, from Beta(1/2, 1/2). The first ``order - 1`` bits are fair coins; the others follow the table.
    At each step a bit comes in, and the next one is asked once a whole context has been seen: the first
    ``order - 1`` bits, which nobody can predict, are *not charged*, so that 195 of 200 are.

    The best that any predictor can do is (N1 + 1/2) / (N0 + N1 + 1), with N0 and N1 the zeros and ones that
    followed the same context so far in the sequence (Murphy 2012; the mean of the posterior). What a set
    costs depends on the tables drawn for it, so the main metric is what the model pays in excess of that
    predictor on the very same sequences, ``bits_above_optimum_per_sequence``: below 0 only by luck.

    Args:
        order: n; contexts have one bit less.
        min_length: fewest bits in a training sequence.
        max_length: most bits in a training sequence.
        lengths: longer sequences on which the trained model is also tested, each on its own.
        bucket: this many consecutive sequences share one length, so that a batch of that size carries
            no padding; 1 draws every length independently.
        val_sequences: sequences in the validation set.
        test_sequences: sequences in the test set at trained lengths.
        curriculum: up to max_length bits at first, and up to twice as many whenever training sequences cost
            less than this, in bits for each bit asked; true: 0.75 (at 200 bits the optimum is 0.66); or a
            mapping with any of threshold, start (instead of max_length; not below min_length), max (null:
            any length) and window (256 sequences, for the mean); null or false: no curriculum.
    """

    easy = 0.75
    tested = frozenset({"lengths", "test_sequences"})
    objective = Objective("bits_above_optimum_per_sequence", "min")

    def __init__(
        self,
        *,
        order: int = 6,
        min_length: int = 200,
        max_length: int = 200,
        lengths: list[int] | None = None,
        bucket: int = 4,
        val_sequences: int = 1000,
        test_sequences: int = 1000,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.curriculum, self.least_size, self.first_ceiling = curriculum, min_length, max_length
        self.lengths = [200, 400, 800] if lengths is None else lengths
        at_least(
            "task",
            {
                "order": (order, 2),
                "min_length": (min_length, order),
                "lengths": (min([order, *self.lengths]), order),
                "bucket": (bucket, 1),
                "val_sequences": (val_sequences, 1),
                "test_sequences": (test_sequences, 1),
            },
        )
        require(
            order <= 16,
            f"task.order: {order} is not allowed.",
            "At most 16: a table has 2^(order-1) entries.",
        )
        check_range("length", min_length, max_length)
        self.order, self.bucket = order, bucket
        self.min_length, self.max_length = min_length, max_length
        self.val_sequences, self.test_sequences = val_sequences, test_sequences
        self.spec = StreamSpec({"x": Vector(1)}, Bits(1))

    def splits(self, stage: str) -> list[Split]:
        level = ("length", self.lengths, self.max_length)
        return sized_splits(stage, self.val_sequences, self.test_sequences, level)

    def sequence_lengths(self, split: Split, draws: Draws, start: int, count: int) -> NDArray[np.int64]:
        """Bits of each sequence, ``int64[count]``."""
        if split.level is not None:
            return np.full(count, split.level)
        longest = split.ceiling or self.max_length
        return draws.integers(start, count, self.min_length, longest, "length", self.bucket)

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        lengths = self.sequence_lengths(split, draws, start, count)
        longest, limit = int(lengths.max()), split.level or split.ceiling or self.max_length
        # Beta(1/2, 1/2) is the arcsine distribution.
        table = np.sin(draws.uniform(start, count, 2 ** (self.order - 1), "table") * (np.pi / 2)) ** 2
        coins = draws.uniform(start, count, limit, "bits")[:, :longest]
        bits, optimal = source(table, coins, self.order - 1)
        steps = np.arange(longest - 1)[None]
        real = (steps < lengths[:, None] - 1).astype(np.float32)
        asked = real * (steps >= self.order - 2)
        stream = torch.from_numpy(bits.astype(np.float32)).unsqueeze(-1)
        return Batch(
            {"x": stream[:, :-1] * torch.from_numpy(real).unsqueeze(-1)},
            stream[:, 1:] * torch.from_numpy(real).unsqueeze(-1),
            torch.from_numpy(asked),
            None if lengths.min() == longest else torch.from_numpy(real),
            extra={"optimal_bits": torch.from_numpy((optimal[:, 1:] * asked).astype(np.float32))},
        )

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Cost in bits per sequence: the model's, the optimal predictor's, and what lies between."""
        score = bit_score(logits, batch)
        cost, sequences = score.metrics["cost_bits_per_sequence"]
        optimum = batch.extra["optimal_bits"].double().sum()
        metrics = {
            "bits_above_optimum_per_sequence": (cost - optimum, sequences),
            "cost_bits_per_sequence": (cost, sequences),
            "optimal_bits_per_sequence": (optimum, sequences),
        }
        return Score(score.loss, metrics)


def source(
    table: NDArray[np.float64], coins: NDArray[np.float64], context: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw sequences from n-gram tables, and what the optimal predictor pays for each bit.

    Args:
        table: ``float64[B, 2^context]``, the probability of a 1 after each context; the latest bit counts
            least in a context's number.
        coins: ``float64[B, L]`` in [0, 1); a bit is 1 where its coin is below its probability.
        context: bits that decide about the next.

    Returns:
        bits ``int64[B, L]`` and costs ``float64[B, L]``, which are 1 for the first ``context`` bits.
    """
    count, length = coins.shape
    bits = np.zeros((count, length), np.int64)
    costs = np.ones((count, length))
    bits[:, :context] = coins[:, :context] < 0.5
    number = bits[:, :context] @ (2 ** np.arange(context)[::-1])
    rows, last = np.arange(count), 2**context - 1
    seen = np.full((count, 2**context, 2), 0.5)
    for t in range(context, length):
        bit = (coins[:, t] < table[rows, number]).astype(np.int64)
        counts = seen[rows, number]
        costs[:, t] = counts[rows, bit] / counts.sum(1)
        seen[rows, number, bit] += 1
        bits[:, t], number = bit, (2 * number + bit) & last
    costs[:, context:] = -np.log2(costs[:, context:])
    return bits, costs
