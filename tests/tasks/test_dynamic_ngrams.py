"""Dynamic n-grams: the source, the optimal predictor, which bits are charged, test sets, bad sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mannlab import registry
from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.errors import ConfigError
from mannlab.tasks.dynamic_ngrams import source

DRAWS = Draws(3, "train")
TRAIN = Split("train")


def make(**options):
    return registry.build("task", "dynamic_ngrams", **options)


def naive(bits, context):
    """What the optimal predictor pays for each bit of one sequence, by the book."""
    seen, costs = {}, []
    for t, bit in enumerate(bits):
        if t < context:
            costs.append(1.0)
            continue
        counts = seen.setdefault(tuple(bits[t - context : t]), [0, 0])
        one = (counts[1] + 0.5) / (counts[0] + counts[1] + 1)
        costs.append(-math.log2(one if bit else 1 - one))
        counts[bit] += 1
    return costs


@pytest.mark.parametrize("context", [1, 2, 5])
def test_the_optimal_predictor_is_that_of_the_paper(context):
    random = np.random.default_rng(0)
    bits, costs = source(random.random((4, 2**context)), random.random((4, 60)), context)
    for row in range(4):
        np.testing.assert_allclose(costs[row], naive(bits[row].tolist(), context))


def test_bits_follow_the_table_of_their_context():
    table = np.array([[0.0, 1.0, 1.0, 0.0]])  # the sum of the last two bits, modulo 2
    bits, _ = source(table, np.random.default_rng(1).random((1, 50)), 2)
    assert (bits[0, 2:] == bits[0, 1:-1] ^ bits[0, :-2]).all()
    often = np.array([[0.9, 0.2]])
    bits, _ = source(often, np.random.default_rng(2).random((1, 20_000)), 1)
    for last, probability in enumerate(often[0]):
        assert bits[0, 1:][bits[0, :-1] == last].mean() == pytest.approx(probability, abs=0.02)


def test_the_next_bit_is_asked_once_a_context_was_seen():
    batch = make().batch(TRAIN, DRAWS, 0, 3)
    x, y = batch.inputs["x"], batch.targets
    assert x.shape == y.shape == (3, 199, 1)
    assert torch.equal(y[:, :-1], x[:, 1:])
    assert batch.valid is None
    assert batch.scored[:, :4].sum() == 0
    assert (batch.scored[:, 4:] == 1).all(), "195 of 200 bits are charged"


def test_what_the_optimum_costs():
    """Simulated by itself: 127.98 bits for the 195 that are charged."""
    task = make()
    batch = task.batch(TRAIN, DRAWS, 0, 4000)
    score = task.score(torch.zeros(4000, 199, 1), batch)
    means = {name: float(total / count) for name, (total, count) in score.metrics.items()}
    assert means["optimal_bits_per_sequence"] == pytest.approx(127.98, abs=1.5)
    assert means["cost_bits_per_sequence"] == pytest.approx(195)
    assert means["bits_above_optimum_per_sequence"] == pytest.approx(195 - means["optimal_bits_per_sequence"])
    assert task.objective.metric == "bits_above_optimum_per_sequence"


def test_saying_what_the_optimal_predictor_says_is_at_the_optimum():
    task = make(order=3, min_length=30, max_length=30)
    batch = task.batch(TRAIN, DRAWS, 0, 5)
    bits = torch.cat([batch.inputs["x"], batch.targets[:, -1:]], 1)[..., 0].long().tolist()
    costs = torch.tensor([naive(row, 2) for row in bits])[:, 1:, None]
    chance = 2.0**-costs
    logits = torch.logit(torch.where(batch.targets > 0.5, chance, 1 - chance).double())
    total, count = task.score(logits, batch).metrics["bits_above_optimum_per_sequence"]
    assert float(total / count) == pytest.approx(0, abs=1e-4)


def test_tables_are_beta_and_differ_between_sequences():
    draws = np.sin(DRAWS.uniform(0, 5000, 32, "table") * np.pi / 2) ** 2
    assert draws.mean() == pytest.approx(0.5, abs=0.01)
    assert draws.var() == pytest.approx(1 / 8, rel=0.02), "of Beta(1/2, 1/2)"
    assert np.mean(draws < 0.1) == pytest.approx(2 / np.pi * math.asin(math.sqrt(0.1)), abs=0.01)


@pytest.mark.parametrize("split", [TRAIN, Split("train", ceiling=25)])
@pytest.mark.parametrize("bucket", [1, 4])
def test_a_sample_depends_on_its_index_alone(bucket, split):
    task = make(order=3, min_length=5, max_length=12, bucket=bucket)
    whole = task.batch(split, DRAWS, 5, 9)
    assert whole.valid is not None
    for i in range(9):
        alone = task.batch(split, DRAWS, 5 + i, 1)
        steps = alone.targets.shape[1]
        assert torch.equal(whole.inputs["x"][i, :steps], alone.inputs["x"][0])
        assert torch.equal(whole.targets[i, :steps], alone.targets[0])
        assert torch.equal(whole.extra["optimal_bits"][i, :steps], alone.extra["optimal_bits"][0])
        assert whole.valid[i, steps:].sum() == whole.inputs["x"][i, steps:].abs().sum() == 0


def test_levels_fix_the_length():
    splits = make(lengths=[400], test_sequences=10).splits("test")
    assert [(split.label, split.level) for split in splits] == [("", None), ("length_400", 400)]
    assert make().batch(splits[1], DRAWS, 0, 2).scored.sum() == 2 * 395
    assert [split.label for split in make().splits("val")] == ["", "length_400"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"order": 1}, "task.order: 1"),
        ({"order": 17}, "task.order: 17"),
        ({"min_length": 5}, "task.min_length: 5"),
        ({"max_length": 100}, "task.max_length: 100"),
        ({"lengths": [5]}, "task.lengths: 5"),
        ({"bucket": 0}, "task.bucket"),
        ({"val_sequences": 0}, "task.val_sequences"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)
