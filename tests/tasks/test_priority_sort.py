"""Priority sort: the order of the answer, how many are asked, test sets, bad sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mannlab import registry
from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.errors import ConfigError

DRAWS = Draws(3, "train")
TRAIN = Split("train")


def make(**options):
    return registry.build("task", "priority_sort", **options)


@pytest.mark.parametrize("options", [{}, {"min_items": 3, "max_items": 9, "answers": 6, "bucket": 1}])
def test_the_answer_is_the_vectors_of_highest_priority_in_order(options):
    task = make(**options)
    batch, items = task.batch(TRAIN, DRAWS, 0, 12), task.item_counts(TRAIN, DRAWS, 0, 12)
    asked = task.asked_of(items)
    for row, (count, answers) in enumerate(zip(items.tolist(), asked.tolist(), strict=True)):
        x, y = batch.inputs["x"][row], batch.targets[row]
        ranked = sorted(range(count), key=lambda item: -x[item, 8].item())[:answers]
        assert torch.equal(y[count + 1 : count + 1 + answers], x[ranked, :8])
        assert x[:, 9].nonzero().flatten().tolist() == [count], "a delimiter after the last"
        assert x[count + 1 :].abs().sum() == 0, "no input while the answer is given"
        assert batch.scored[row].nonzero().flatten().tolist() == list(range(count + 1, count + 1 + answers))
        if batch.valid is not None:
            assert batch.valid[row].sum() == count + 1 + answers
    assert (batch.valid is None) == (len(set(items.tolist())) == 1)


def test_the_paper_asks_16_of_20_with_priorities_uniform_from_minus_1_to_1():
    batch = make().batch(TRAIN, DRAWS, 0, 400)
    assert batch.targets.shape == (400, 37, 8)
    assert (batch.scored.sum(1) == 16).all()
    priorities = batch.inputs["x"][:, :20, 8]
    assert priorities.min() < -0.99
    assert priorities.max() > 0.99
    assert priorities.mean().abs() < 0.03
    assert priorities.std() == pytest.approx(1 / np.sqrt(3), rel=0.02)
    assert abs(batch.inputs["x"][:, :20, :8].mean() - 0.5) < 0.01


def test_of_other_numbers_as_many_are_asked_in_proportion():
    assert make().asked_of(np.array([1, 2, 10, 20, 30, 40])).tolist() == [1, 2, 8, 16, 24, 32]
    assert make(answers=1).asked_of(np.array([1, 40])).tolist() == [1, 2]


@pytest.mark.parametrize("split", [TRAIN, Split("train", ceiling=11)])
@pytest.mark.parametrize("bucket", [1, 4])
def test_a_sample_depends_on_its_index_alone(bucket, split):
    task = make(bits=3, min_items=2, max_items=6, answers=5, bucket=bucket)
    whole = task.batch(split, DRAWS, 5, 9)
    for i in range(9):
        alone = task.batch(split, DRAWS, 5 + i, 1)
        steps = alone.targets.shape[1]
        assert torch.equal(whole.inputs["x"][i, :steps], alone.inputs["x"][0])
        assert torch.equal(whole.targets[i, :steps], alone.targets[0])
        assert whole.inputs["x"][i, steps:].abs().sum() == 0


def test_levels_fix_the_number_of_vectors():
    splits = make(items=[30], test_sequences=10).splits("test")
    assert [(split.label, split.level, split.samples) for split in splits] == [
        ("", None, 10),
        ("items_30", 30, 2),
    ]
    assert make().batch(splits[1], DRAWS, 0, 2).scored.sum() == 48
    assert [split.label for split in make().splits("val")] == ["", "items_25"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 0}, "task.bits"),
        ({"min_items": 0}, "task.min_items"),
        ({"min_items": 21}, "task.max_items: 20"),
        ({"answers": 0}, "task.answers"),
        ({"answers": 21}, "task.answers: 21"),
        ({"items": [0]}, "task.items"),
        ({"bucket": 0}, "task.bucket"),
        ({"test_sequences": 0}, "task.test_sequences"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)
