"""Associative recall: the protocol of the paper, padding, levels and bad sizes."""

from __future__ import annotations

import pytest
import torch

from mannlab import registry
from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.errors import ConfigError

DRAWS = Draws(3, "train")
TRAIN = Split("train")


def make(**options):
    return registry.build("task", "associative_recall", **options)


def test_the_answer_is_the_item_after_the_one_asked_for():
    task = make(bits=8, max_items=5, bucket=1)
    batch = task.batch(TRAIN, DRAWS, 0, 20)
    for row in range(20):
        x, asked = batch.inputs["x"][row], batch.scored[row].bool()
        starts = (x[:, 8] == 1).nonzero()[:, 0]
        assert 2 <= len(starts) <= 5
        items = [x[s + 1 : s + 4, :8] for s in starts]
        first, last = (x[:, 9] == 1).nonzero()[:, 0]
        query = x[first + 1 : last, :8]
        found = [i for i, item in enumerate(items[:-1]) if torch.equal(item, query)]
        answer = batch.targets[row][asked]
        assert any(torch.equal(items[i + 1], answer) for i in found)
        assert asked.nonzero()[:, 0].tolist() == [last + 1, last + 2, last + 3]
        assert x[last + 1 :].abs().sum() == 0, "no input while the answer is given"


def test_every_item_but_the_last_is_asked_for():
    task = make(min_items=4, max_items=4)
    counts = torch.zeros(4)
    for row in range(200):
        batch = task.batch(TRAIN, DRAWS, row, 1)
        x = batch.inputs["x"][0]
        first = (x[:, 7] == 1).nonzero()[0, 0]
        for i in range(4):
            counts[i] += torch.equal(x[4 * i + 1 : 4 * i + 4, :6], x[first + 1 : first + 4, :6])
    assert counts[3] == 0
    assert counts[:3].min() > 40


@pytest.mark.parametrize("bucket", [1, 4])
def test_a_sample_depends_on_its_index_alone(bucket):
    task = make(bits=3, max_items=4, bucket=bucket)
    whole = task.batch(TRAIN, DRAWS, 5, 9)
    for i in range(9):
        alone = task.batch(TRAIN, DRAWS, 5 + i, 1)
        steps = alone.targets.shape[1]
        assert torch.equal(whole.inputs["x"][i, :steps], alone.inputs["x"][0])
        assert torch.equal(whole.targets[i, :steps], alone.targets[0])
        assert whole.valid is None or whole.valid[i].sum() == steps


def test_levels_fix_the_number_of_items():
    task = make(items=[12])
    split = task.splits("test")[1]
    batch = task.batch(split, DRAWS, 0, 3)
    assert (split.label, int(batch.inputs["x"][0, :, 6].sum())) == ("items_12", 12)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 0}, "task.bits"),
        ({"item_length": 0}, "task.item_length"),
        ({"min_items": 1}, "task.min_items"),
        ({"items": [1]}, "task.items"),
        ({"min_items": 5, "max_items": 4}, "task.max_items"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)
