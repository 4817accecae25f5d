"""Repeat copy: the protocol of the paper, the number of repeats, test sets, bad sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mannlab import registry
from mannlab.compose import conf_dir
from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.errors import ConfigError
from mannlab.training.curriculum import plan_of

DRAWS = Draws(3, "train")
TRAIN = Split("train")


def make(**options):
    return registry.build("task", "repeat_copy", **options)


def test_the_answer_is_the_sequence_so_many_times_and_an_end_marker():
    task = make(bits=4, max_length=5, max_repeats=6, bucket=1)
    batch = task.batch(TRAIN, DRAWS, 0, 40)
    lengths, repeats = task.sizes(TRAIN, DRAWS, 0, 40)
    assert len(set(zip(lengths.tolist(), repeats.tolist(), strict=True))) > 15
    for row, (length, times) in enumerate(zip(lengths.tolist(), repeats.tolist(), strict=True)):
        x, y, scored = batch.inputs["x"][row], batch.targets[row], batch.scored[row]
        answer = y[length + 1 : length + 1 + times * length]
        assert torch.equal(answer[:, :4], x[:length, :4].repeat(times, 1))
        end = length + 1 + times * length
        assert y[:, 4].nonzero().flatten().tolist() == [end], "the end marker comes once, at the end"
        assert y[end, :4].sum() == 0
        assert scored.nonzero().flatten().tolist() == list(range(length + 1, end + 1))
        assert x[:, 4].nonzero().flatten().tolist() == [length], "one delimiter"
        assert x[:, 5].nonzero().flatten().tolist() == [length], "the number comes with it"
        assert x[length + 1 :].abs().sum() == 0, "no input while the answer is given"
        assert batch.valid[row].sum() == end + 1


@pytest.mark.parametrize(("least", "most"), [(1, 10), (3, 4), (2, 2)])
def test_the_number_of_repeats_has_mean_0_and_variance_1(least, most):
    task = make(min_repeats=least, max_repeats=most)
    shown = task.normalised(np.arange(least, most + 1))
    assert shown.mean() == pytest.approx(0)
    assert shown.var() == pytest.approx(1 if most > least else 0)
    if most > least:
        assert np.diff(np.append(shown, task.normalised(np.array([most + 1])))) == pytest.approx(
            shown[1] - shown[0]
        ), "more repeats than in training go on along the same line"


def test_length_and_repeats_cover_their_ranges_independently():
    lengths, repeats = make(bucket=1).sizes(TRAIN, DRAWS, 0, 20_000)
    pairs = np.bincount((lengths - 1) * 10 + repeats - 1, minlength=100)
    assert np.abs(pairs / 200 - 1).max() < 0.35


def test_a_bucket_shares_both_sizes_and_needs_no_padding():
    assert make(bucket=8).batch(TRAIN, DRAWS, 16, 8).valid is None


@pytest.mark.parametrize("split", [TRAIN, Split("train", ceiling=9)])
@pytest.mark.parametrize("bucket", [1, 4])
def test_a_sample_depends_on_its_index_alone(bucket, split):
    task = make(bits=3, max_length=5, max_repeats=3, bucket=bucket)
    whole = task.batch(split, DRAWS, 5, 9)
    for i in range(9):
        alone = task.batch(split, DRAWS, 5 + i, 1)
        steps = alone.targets.shape[1]
        assert torch.equal(whole.inputs["x"][i, :steps], alone.inputs["x"][0])
        assert torch.equal(whole.targets[i, :steps], alone.targets[0])
        assert whole.scored[i, steps:].sum() == 0


def test_test_sets_double_one_size_each():
    splits = {split.label: split for split in make(test_sequences=10).splits("test")}
    sizes = (5, 10, 20)
    assert list(splits) == ["", *(f"length_{n}" for n in sizes), *(f"repeats_{n}" for n in sizes)]
    for label, size in (("length_20", (20, 10)), ("repeats_20", (10, 20))):
        lengths, repeats = make().sizes(splits[label], DRAWS, 0, 2)
        assert (lengths[0], repeats[0]) == size
        batch = make().batch(splits[label], DRAWS, 0, 2)
        assert (batch.scored.sum(1) == 201).all()
    assert [split.label for split in make().splits("val")] == ["", "length_20", "repeats_20"]


def test_a_ceiling_bounds_both_sizes():
    lengths, repeats = make(bucket=1).sizes(Split("train", ceiling=3), DRAWS, 0, 500)
    assert set(lengths) == set(repeats) == {1, 2, 3}


@pytest.mark.parametrize("sizes", [(10, 20), (20, 10), (10, 10), (1, 1)])
def test_a_curriculum_ends_at_the_largest_of_each_size(sizes):
    task = make(bucket=1, max_length=sizes[0], max_repeats=sizes[1])
    recipe = OmegaConf.load(conf_dir() / "recipe" / "repeat_copy.yaml")
    recipe = OmegaConf.merge({"task": {"max_length": sizes[0], "max_repeats": sizes[1]}}, recipe)
    task.curriculum = OmegaConf.to_container(recipe.task.curriculum, resolve=True) | {"start": min(2, *sizes)}
    assert plan_of(task).max == max(sizes)
    lengths, repeats = task.sizes(Split("train", ceiling=plan_of(task).max), DRAWS, 0, 2000)
    assert (lengths.max(), repeats.max()) == sizes
    assert plan_of(make(curriculum=True)).start == 2


def test_the_sizes_grow_together_until_each_is_at_its_largest():
    task = make(bucket=1, min_length=3, max_length=4, max_repeats=9, curriculum=True)
    assert plan_of(task).start == 3
    for ceiling, largest in ((3, (3, 3)), (6, (4, 6)), (9, (4, 9))):
        split = Split("train", ceiling=ceiling)
        assert tuple(sizes.max() for sizes in task.sizes(split, DRAWS, 0, 2000)) == largest
        assert len(task.batch(split, DRAWS, 0, 9)) == 9


def test_end_markers_are_counted():
    task = make(bits=2, max_length=3, bucket=2)
    batch = task.batch(TRAIN, DRAWS, 0, 2)
    sure = (batch.targets * 2 - 1) * 20
    sure[..., -1] *= -1
    score = task.score(sure, batch)
    wrong, sequences = score.metrics["end_marker_errors_per_sequence"]
    assert wrong / sequences == batch.scored[0].sum()
    assert score.metrics["bit_errors_per_sequence"][0] == wrong, "and no other bit is wrong"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 0}, "task.bits"),
        ({"min_length": 0}, "task.min_length"),
        ({"min_repeats": 0}, "task.min_repeats"),
        ({"min_length": 9, "max_length": 8}, "task.max_length: 8"),
        ({"min_repeats": 9, "max_repeats": 8}, "task.max_repeats: 8"),
        ({"lengths": [0]}, "task.lengths"),
        ({"repeats": [4, 0]}, "task.repeats"),
        ({"bucket": 0}, "task.bucket"),
        ({"val_sequences": 0}, "task.val_sequences"),
        ({"test_sequences": 0}, "task.test_sequences"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)
