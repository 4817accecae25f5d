"""Addition: sum two numbers that come digit by digit; values say nothing about where to look."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mannlab.contracts import Batch, Classes, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.errors import at_least
from mannlab.registry import register
from mannlab.scoring import class_costs
from mannlab.tasks._levels import check_range, sized_splits


@register("task", "addition")
class Addition(Task):
    """Add two numbers that come one after the other, digit by digit (after Graves et al. 2014, 3.3.2).

    The paper argues for addressing by location with arithmetic: the operands must be fetched whatever
    their values are, so a lookup by content does not find them. Here each digit of the answer needs the
    digits at one place of both numbers, which came many steps apart, and a carry.

    The stream is the first number, a plus sign, the second number, an equals sign (one channel for each
    digit and sign), then silence while the sum is answered, least significant digit first, with one digit
    more than the longer number has. Numbers of digits are uniform in [min_digits, max_digits], for each
    number on its own; so is every digit in [0, base), the leading one too.

    Args:
        base: of the numbers.
        min_digits: shortest number in training.
        max_digits: longest number in training.
        operands: whether numbers are shown with the least or with the most significant digit first.
        digits: numbers of digits, of both numbers, at which the trained model is also tested.
        bucket: this many consecutive sequences have numbers of the same lengths, so that a batch of that
            size carries no padding; 1 draws each on its own.
        val_sequences: sequences in the validation set.
        test_sequences: sequences in the test set at trained sizes.
        curriculum: up to max_digits digits at first, and up to twice as many whenever training sequences
            cost less than this, in bits for each digit asked; true: 0.1; or a mapping with any of threshold,
            start (instead of max_digits), max (null: any number) and window (256 sequences, over which the
            mean is taken); null or false: no curriculum.
    """

    tested = frozenset({"digits", "test_sequences"})
    objective = Objective("cost_bits_per_sequence", "min", solved=0.1, shown="digit_errors_per_sequence")

    def __init__(
        self,
        *,
        base: int = 10,
        min_digits: int = 1,
        max_digits: int = 10,
        operands: Literal["least_first", "most_first"] = "least_first",
        digits: list[int] | None = None,
        bucket: int = 4,
        val_sequences: int = 640,
        test_sequences: int = 640,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.curriculum, self.least_size, self.first_ceiling = curriculum, min_digits, max_digits
        self.digits = [5, 10, 15, 20, 40] if digits is None else digits
        counts = {"min_digits": min_digits, "bucket": bucket, "digits": min([1, *self.digits])}
        counts |= {"val_sequences": val_sequences, "test_sequences": test_sequences}
        at_least("task", {"base": (base, 2), **{key: (value, 1) for key, value in counts.items()}})
        check_range("digits", min_digits, max_digits)
        self.base, self.bucket, self.least_first = base, bucket, operands == "least_first"
        self.min_digits, self.max_digits = min_digits, max_digits
        self.val_sequences, self.test_sequences = val_sequences, test_sequences
        self.spec = StreamSpec({"x": Vector(base + 2)}, Classes(base))

    def splits(self, stage: str) -> list[Split]:
        level = ("digits", self.digits, self.max_digits)
        return sized_splits(stage, self.val_sequences, self.test_sequences, level)

    def digit_counts(self, split: Split, draws: Draws, start: int, count: int) -> NDArray[np.int64]:
        """Digits of both numbers of each sequence, ``int64[2, count]``."""
        if split.level is not None:
            return np.full((2, count), split.level)
        most = split.ceiling or self.max_digits
        return np.stack(
            [
                draws.integers(start, count, self.min_digits, most, purpose, self.bucket)
                for purpose in ("first_length", "second_length")
            ]
        )

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        lengths = self.digit_counts(split, draws, start, count)
        most, limit = int(lengths.max()), split.level or split.ceiling or self.max_digits
        drawn = draws.uniform(start, count, 2 * limit, "digits").reshape(count, 2, limit)[..., :most]
        # Number, sequence, place: the least significant first, zeros above the leading digit.
        numbers = (drawn * self.base).astype(np.int64).transpose(1, 0, 2)
        numbers *= np.arange(most) < lengths[..., None]
        total = add(numbers, self.base)

        rows, first, second = np.arange(count), *lengths
        equals = first + second + 1
        last = equals + np.maximum(first, second) + 1
        steps = np.arange(int(last.max()) + 1)[None]
        x = np.zeros((count, steps.shape[1], self.base + 2), np.float32)
        y = np.zeros((*x.shape[:2], 1), np.int64)
        for number, length, begin in zip(numbers, lengths, (np.zeros_like(first), first + 1), strict=True):
            row, place = np.nonzero(np.arange(most)[None] < length[:, None])
            step = place if self.least_first else length[row] - 1 - place
            x[row, begin[row] + step, number[row, place]] = 1
        x[rows, first, self.base] = x[rows, equals, self.base + 1] = 1
        scored = (steps > equals[:, None]) & (steps <= last[:, None])
        row, step = np.nonzero(scored)
        y[row, step, 0] = total[row, step - equals[row] - 1]
        valid = None
        if last.min() < last.max():
            valid = torch.from_numpy((steps <= last[:, None]).astype(np.float32))
        return Batch(
            {"x": torch.from_numpy(x)},
            torch.from_numpy(y),
            torch.from_numpy(scored.astype(np.float32)),
            valid,
        )

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Loss in nats per sequence; cost in bits, wrong digits, and sums that are right in every digit."""
        total = class_costs(logits, batch).sum()
        sequences = total.detach().new_tensor(float(len(batch)))
        with torch.no_grad():
            wrong = ((logits.argmax(-1) != batch.targets).any(-1) & batch.scored.bool()).sum(1)
        metrics = {
            "digit_errors_per_sequence": (wrong.sum(), sequences),
            "cost_bits_per_sequence": (total.detach() / math.log(2), sequences),
            "accuracy_percent": (100 * (wrong == 0).sum(), sequences),
        }
        return Score(total / sequences, metrics)


def add(numbers: NDArray[np.int64], base: int) -> NDArray[np.int64]:
    """Sums digit by digit, the least significant first: ``[2, B, places]`` to ``[B, places + 1]``."""
    _, count, places = numbers.shape
    total = np.zeros((count, places + 1), np.int64)
    total[:, :places] = numbers.sum(0)
    for place in range(places):
        total[:, place + 1] += total[:, place] // base
        total[:, place] %= base
    return total
