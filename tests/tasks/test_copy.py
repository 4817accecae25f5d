"""The copy task: the protocol of the paper, padding, levels and bad sizes."""

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
    return registry.build("task", "copy", **options)


def test_the_answer_is_the_sequence_after_the_delimiter():
    task = make(bits=4, max_length=6, bucket=1)
    batch = task.batch(TRAIN, DRAWS, 0, 12)
    for row in range(12):
        x, y, scored = batch.inputs["x"][row], batch.targets[row], batch.scored[row]
        length = int(scored.sum())
        assert 1 <= length <= 6
        assert x[length, 4] == 1
        assert x[:, 4].sum() == 1
        assert torch.equal(y[length + 1 : 2 * length + 1], x[:length, :4])
        assert x[length + 1 :].abs().sum() == 0, "no input while the answer is given"
        assert batch.valid is None or batch.valid[row].sum() == 2 * length + 1


def test_lengths_cover_the_range_and_bits_are_fair():
    task = make(bits=8, max_length=20, bucket=1)
    lengths = task.sequence_lengths(TRAIN, DRAWS, 0, 20_000)
    counts = torch.bincount(torch.as_tensor(lengths), minlength=21)
    assert counts[0] == 0
    assert (counts[1:].float() / 1000 - 1).abs().max() < 0.15
    batch = task.batch(TRAIN, DRAWS, 0, 500)
    share = batch.targets.sum() / (batch.scored.sum() * 8)
    assert abs(share - 0.5) < 0.01


def test_a_bucket_shares_one_length_and_needs_no_padding():
    task = make(bucket=8)
    assert task.batch(TRAIN, DRAWS, 16, 8).valid is None
    lengths = task.sequence_lengths(TRAIN, DRAWS, 0, 64).reshape(8, 8)
    assert (lengths == lengths[:, :1]).all()
    assert len(set(lengths[:, 0])) > 1


@pytest.mark.parametrize("bucket", [1, 4, 8])
def test_a_sample_depends_on_its_index_alone(bucket):
    task = make(bits=3, max_length=5, bucket=bucket)
    whole = task.batch(TRAIN, DRAWS, 5, 9)
    for i in range(9):
        alone = task.batch(TRAIN, DRAWS, 5 + i, 1)
        steps = alone.targets.shape[1]
        assert torch.equal(whole.inputs["x"][i, :steps], alone.inputs["x"][0])
        assert torch.equal(whole.targets[i, :steps], alone.targets[0])
        assert whole.inputs["x"][i, steps:].abs().sum() == 0


def test_levels_fix_the_length():
    task = make(lengths=[30], max_length=5, test_sequences=10)
    trained, longer = task.splits("test")
    assert (trained.level, longer.level, longer.label) == (None, 30, "length_30")
    assert int(task.batch(longer, DRAWS, 0, 2).scored[0].sum()) == 30


def test_validation_includes_one_longer_length():
    assert [split.label for split in make().splits("val")] == ["", "length_30"]


def test_score_counts_wrong_bits_and_nats():
    task = make(bits=2, max_length=3, bucket=2)
    batch = task.batch(TRAIN, DRAWS, 0, 2)
    sure = (batch.targets * 2 - 1) * 20
    right = task.score(sure, batch)
    assert right.loss < 1e-6
    assert right.metrics["bit_errors_per_sequence"][0] == 0
    wrong = task.score(-sure, batch)
    errors, sequences = wrong.metrics["bit_errors_per_sequence"]
    assert errors / sequences == batch.scored.sum() * 2 / 2
    chance = task.score(torch.zeros_like(sure), batch)
    bits, sequences = chance.metrics["cost_bits_per_sequence"]
    torch.testing.assert_close(bits / sequences, batch.scored[0].sum() * 2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 0}, "task.bits"),
        ({"min_length": 0}, "task.min_length"),
        ({"min_length": 9, "max_length": 8}, "task.max_length"),
        ({"lengths": [0]}, "task.lengths"),
        ({"lengths": 30}, "task.lengths"),
        ({"bucket": 0}, "task.bucket"),
        ({"val_sequences": 0}, "task.val_sequences"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)
