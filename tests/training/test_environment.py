from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mannlab.errors import ConfigError
from mannlab.training.environment import choose_threads, quiet, seed_everything, set_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_seed_sets_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first


@pytest.mark.parametrize("seed", [-1, 2**32, "x", True, None])
def test_bad_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="seed"):
        seed_everything(seed)  # type: ignore[arg-type]


def test_threads() -> None:
    assert set_threads({"threads": 2}) == torch.get_num_threads() == 2
    assert set_threads({"threads": "auto"}) == torch.get_num_threads() == 1
    assert choose_threads({"task": {"encoder": "conv"}}) >= 1


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (32, 1), (64, 2), (1000, 3), ("many", 1)])
def test_threads_by_size(batch: object, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert choose_threads({"batch_size": batch}) == threads


@pytest.mark.parametrize("threads", [0, -1, "many", 1.5, True])
def test_bad_threads_are_refused(threads: object) -> None:
    with pytest.raises(ConfigError, match="threads"):
        set_threads({"threads": threads})


def test_quiet_drops_advice_and_keeps_the_rest() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet()
        warnings.warn(
            "The 'val_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1
        )
        warnings.warn("The loss is odd.", stacklevel=1)
    assert [str(each.message) for each in seen] == ["The loss is odd."]


def test_a_job_of_a_sweep_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    config = {"task": {"encoder": "conv"}, "batch_size": 256}
    assert choose_threads(config) == 8
    monkeypatch.setenv("MANNLAB_CORES", "2")
    assert choose_threads(config) == 2
    monkeypatch.setenv("MANNLAB_CORES", "99")
    assert choose_threads(config) == 8
