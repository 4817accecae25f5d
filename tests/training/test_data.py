from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mannlab.contracts import Batch, Bits, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.registry import build
from mannlab.training.data import IGNORED, EvaluationSet, StreamData, TrainStream, place


class Numbers(Task):
    """Samples that say their own index."""

    spec = StreamSpec({"x": Vector(1)}, Bits(1))
    objective = Objective("errors")

    def __init__(self, samples: int = 5) -> None:
        self.samples = samples

    def splits(self, stage: str) -> list[Split]:
        return [Split(stage, None if stage == "train" else self.samples)]

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        x = torch.arange(start, start + count).float().reshape(count, 1, 1)
        return Batch({"x": x}, torch.full_like(x, draws.seed), torch.ones(count, 1))

    def score(self, logits: torch.Tensor, batch: Batch) -> Score:
        raise NotImplementedError


def indices(batch: Batch) -> list[int]:
    return batch.inputs["x"].flatten().int().tolist()


def take(loader: Any, count: int) -> list[list[int]]:
    return [indices(batch) for batch in itertools.islice(loader, count)]


def test_two_ranks_see_together_what_one_process_of_double_batch_sees() -> None:
    one = take(TrainStream(Numbers(), 1, 6, 4), 3)
    ranks = [take(TrainStream(Numbers(), 1, 6, 2, rank, 2), 3) for rank in range(2)]
    assert one == [a + b for a, b in zip(*ranks, strict=True)]
    assert one[0] == [6, 7, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(workers: int) -> None:
    plain = take(StreamData(Numbers(), 1, 4).train_dataloader(), 7)
    loader = StreamData(Numbers(), 1, 4, workers).train_dataloader()
    assert take(loader, 7) == plain


def test_stream_continues_where_the_state_says() -> None:
    data = StreamData(Numbers(), 1, 4)
    data.load_state_dict({"consumed": 12})
    assert take(data.train_dataloader(), 1) == [[12, 13, 14, 15]]
    assert data.state_dict() == {"consumed": 12}


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 16, 17])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_evaluation_sample_counts_once_and_ranks_stay_in_step(
    samples: int, world: int, batch: int
) -> None:
    task = Numbers(samples)
    sets = [EvaluationSet(task, task.splits("val")[0], batch, rank, world) for rank in range(world)]
    batches = [[each[i] for i in range(len(each))] for each in sets]
    assert len({len(each) for each in batches}) == 1
    counted = [b for each in batches for b in each if IGNORED not in b.extra]
    assert sorted(i for b in counted for i in indices(b)) == list(range(samples))
    assert max(len(b) for b in counted) <= batch


def test_evaluation_does_not_depend_on_the_run_seed() -> None:
    first, second = (StreamData(Numbers(), seed, 2).val_dataloader()[0].dataset[0] for seed in (1, 2))
    assert torch.equal(first.targets, second.targets)


def test_evaluation_ends() -> None:
    assert take(StreamData(Numbers(5), 1, 2).val_dataloader()[0], 99) == [[0], [1, 2], [3, 4]]


def test_endless_evaluation_is_refused() -> None:
    with pytest.raises(ValueError, match="number of samples"):
        EvaluationSet(Numbers(), Split("val"), 2)


def test_loaders_leave_the_random_state_alone() -> None:
    data = StreamData(Numbers(), 1, 2)
    before = torch.get_rng_state()
    take(data.train_dataloader(), 1)
    take(data.val_dataloader()[0], 1)
    assert torch.equal(before, torch.get_rng_state())


def test_place_converts_floats_only() -> None:
    batch = replace(
        Numbers().batch(Split("val", 2), Draws(1, "val"), 0, 2),
        extra={"label": torch.ones(2, dtype=torch.int64)},
    )
    moved = place(batch, torch.device("cpu"), torch.float64)
    assert moved.inputs["x"].dtype == moved.targets.dtype == torch.float64
    assert moved.extra["label"].dtype == torch.int64
    assert np.allclose(moved.inputs["x"], batch.inputs["x"])


def test_the_first_samples_are_those_of_the_set() -> None:
    task = build("task", "copy", max_length=3, bits=3)
    data, split = StreamData(task, 0, 4), Split("val", 3)
    assert [len(data.first(split)), len(data.first(split, 2)), len(data.first(split, 9))] == [1, 2, 3]
    assert torch.equal(data.first(split, 9).targets, EvaluationSet(task, split, 3)[0].targets)
