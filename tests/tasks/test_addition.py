"""Addition: sums are right, digits come in the order asked, test sets, bad sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from mannlab import registry
from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.errors import ConfigError

DRAWS = Draws(3, "train")
TRAIN = Split("train")


def make(**options):
    return registry.build("task", "addition", **options)


def read(digits, base):
    """A number from its digits, the least significant first."""
    return sum(int(digit) * base**place for place, digit in enumerate(digits))


@pytest.mark.parametrize("operands", ["least_first", "most_first"])
@pytest.mark.parametrize(("base", "most"), [(10, 6), (2, 9), (10, 1)])
def test_the_answer_is_the_sum(operands, base, most):
    task = make(base=base, max_digits=most, operands=operands, bucket=1)
    batch = task.batch(TRAIN, DRAWS, 0, 60)
    lengths = task.digit_counts(TRAIN, DRAWS, 0, 60).T.tolist()
    for row, (first, second) in enumerate(lengths):
        x = batch.inputs["x"][row]
        end = first + second + 2 + max(first, second)
        assert (x[: first + second + 2].sum(1) == 1).all(), "one symbol a step"
        assert x[first + second + 2 :].sum() == 0, "no input while the answer is given"
        symbols = x[: first + second + 2].argmax(1).tolist()
        assert (symbols[first], symbols[-1]) == (base, base + 1), "plus and equals"
        numbers = [symbols[:first], symbols[first + 1 : -1]]
        if operands == "most_first":
            numbers = [number[::-1] for number in numbers]
        asked = batch.scored[row].nonzero().flatten().tolist()
        assert asked == list(range(first + second + 2, end + 1)), "one digit more than the longer number"
        answer = batch.targets[row, asked, 0].tolist()
        assert read(answer, base) == sum(read(number, base) for number in numbers)
        assert batch.valid is None or batch.valid[row].sum() == end + 1


def test_digits_are_uniform_and_lengths_independent():
    task = make(bucket=1, max_digits=5)
    lengths = task.digit_counts(TRAIN, DRAWS, 0, 20_000)
    pairs = np.bincount((lengths[0] - 1) * 5 + lengths[1] - 1, minlength=25)
    assert np.abs(pairs / 800 - 1).max() < 0.2
    symbols = task.batch(TRAIN, DRAWS, 0, 2000).inputs["x"].sum((0, 1))
    assert (symbols[:10] / symbols[:10].mean() - 1).abs().max() < 0.1
    assert (symbols[10:] == 2000).all()


@pytest.mark.parametrize("split", [TRAIN, Split("train", ceiling=9)])
@pytest.mark.parametrize("bucket", [1, 4])
def test_a_sample_depends_on_its_index_alone(bucket, split):
    task = make(max_digits=5, bucket=bucket)
    whole = task.batch(split, DRAWS, 5, 9)
    for i in range(9):
        alone = task.batch(split, DRAWS, 5 + i, 1)
        steps = alone.targets.shape[1]
        assert torch.equal(whole.inputs["x"][i, :steps], alone.inputs["x"][0])
        assert torch.equal(whole.targets[i, :steps], alone.targets[0])
        assert whole.scored[i, steps:].sum() == 0


def test_a_bucket_needs_no_padding():
    assert make(bucket=8).batch(TRAIN, DRAWS, 16, 8).valid is None


def test_levels_fix_both_lengths():
    splits = make(digits=[20], test_sequences=10).splits("test")
    assert [(split.label, split.level) for split in splits] == [("", None), ("digits_20", 20)]
    batch = make().batch(splits[1], DRAWS, 0, 2)
    assert batch.inputs["x"].shape == (2, 63, 12)
    assert (batch.scored.sum(1) == 21).all()
    assert [split.label for split in make().splits("val")] == ["", "digits_15"]


def test_score_counts_digits_bits_and_whole_sums():
    task = make(max_digits=3, bucket=2)
    batch = task.batch(TRAIN, DRAWS, 0, 2)
    asked = float(batch.scored[0].sum())
    sure = one_hot(batch.targets, 10).float() * 40
    assert task.score(sure, batch).loss < 1e-6
    first = batch.scored[0].argmax()
    sure[0, first] = sure[0, first].roll(1, -1)
    means = {name: float(total / count) for name, (total, count) in task.score(sure, batch).metrics.items()}
    assert means["digit_errors_per_sequence"] == 0.5
    assert means["accuracy_percent"] == 50
    chance = task.score(torch.zeros_like(sure), batch)
    assert float(chance.loss) == pytest.approx(asked * math.log(10))
    total, count = chance.metrics["cost_bits_per_sequence"]
    assert float(total / count) == pytest.approx(asked * math.log2(10))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base": 1}, "task.base"),
        ({"min_digits": 0}, "task.min_digits"),
        ({"min_digits": 11}, "task.max_digits: 10"),
        ({"digits": [0]}, "task.digits"),
        ({"operands": "middle"}, "task.operands"),
        ({"bucket": 0}, "task.bucket"),
        ({"val_sequences": 0}, "task.val_sequences"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)
