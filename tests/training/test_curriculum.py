"""Sizes that grow as the task is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mannlab.contracts import Batch, Score, Split
from mannlab.draws import Draws
from mannlab.errors import ConfigError
from mannlab.registry import build
from mannlab.training import curriculum as module
from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.curriculum import Curriculum
from mannlab.training.data import StreamData, TrainStream
from mannlab.training.run import train

pytestmark = pytest.mark.usefixtures("silent")


class Trainer:
    """One rank of several that all see the same."""

    def __init__(self, world: int = 1) -> None:
        self.world_size = world
        self.strategy = SimpleNamespace(reduce=lambda sums, reduce_op: sums * world)


def batch_of(cost_nats: float, count: int = 64) -> tuple[Score, Batch]:
    """Sequences of one scored step of 3 bits, each of that cost."""
    empty = torch.zeros(count, 1, 3)
    return Score(torch.tensor(cost_nats), {}), Batch({"x": empty}, empty, torch.ones(count, 1))


def copy_task(**options: Any) -> Any:
    return build("task", "copy", bits=3, max_length=4, **options)


def test_the_ceiling_doubles_when_sequences_cost_little():
    grown = Curriculum(copy_task(curriculum=0.1))
    assert (grown.ceiling, grown.running) == (4, True)
    dear, cheap = 0.11 * 3 * 0.6931472, 0.09 * 3 * 0.6931472
    for cost, ceiling in ((dear, 4), (cheap, 8), (cheap, 16), (dear, 16)):
        for part in range(module.WINDOW // 64):
            before = grown.ceiling
            grown.update(*batch_of(cost), drawn=0, trainer=Trainer())
            assert part == module.WINDOW // 64 - 1 or grown.ceiling == before
        assert grown.ceiling == ceiling


def test_ranks_count_together():
    grown = Curriculum(copy_task(curriculum=0.1))
    for _ in range(module.WINDOW // 128):
        grown.update(*batch_of(0.01), drawn=0, trainer=Trainer(world=2))
    assert grown.ceiling == 8


def test_a_rise_shows_after_the_batches_that_are_drawn_ahead():
    grown = Curriculum(copy_task(curriculum=0.1))
    for n in range(4):
        grown.update(*batch_of(0.01), drawn=64 * (n + 1), trainer=Trainer())
    assert grown.at(255 + 4 * 64) == 4
    assert grown.at(256 + 4 * 64) == 8


def test_it_stops_at_the_last_ceiling():
    task = build("task", "omniglot", classes=5, curriculum=10.0, source="glyphs")
    grown, seen = Curriculum(task), []
    for _ in range(5 * 4):
        grown.update(*batch_of(0.0), drawn=0, trainer=Trainer())
        seen.append(grown.ceiling)
    assert sorted(set(seen)) == [2, 4, 5]
    assert not grown.running


def test_no_curriculum():
    none = Curriculum(copy_task())
    none.update(*batch_of(0.0, 1000), drawn=0, trainer=Trainer())
    assert none.ceiling is none.at(10) is None
    assert not none.running


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("copy", {"max_length": 3}, lambda batch: batch.scored.sum(1)),
        ("associative_recall", {"max_items": 3}, lambda batch: batch.inputs["x"][..., -2].sum(1)),
        (
            "omniglot",
            {"source": "glyphs", "classes": 9},
            lambda batch: batch.extra["class"].amax(1) + 1,
        ),
    ],
)
def test_sizes_reach_the_ceiling_and_no_further(name, options, size):
    task = build("task", name, **options)
    draws = Draws(0, "train")
    sizes = torch.cat([size(task.batch(Split("train", ceiling=7), draws, 16 * n, 16)) for n in range(24)])
    assert sizes.max() == 7
    assert sizes.min() <= 2
    plain = task.batch(Split("train"), draws, 0, 16)
    assert torch.equal(
        plain.targets, build("task", name, **options).batch(Split("train"), draws, 0, 16).targets
    )


def test_episodes_of_different_sizes_are_padded_at_their_ends():
    task = build("task", "omniglot", source="glyphs", classes=6)
    batch = task.batch(Split("train", ceiling=6), Draws(0, "train"), 8, 16)
    assert batch.valid is not None
    assert torch.equal(batch.valid, batch.scored)
    assert bool((batch.valid.diff(dim=1) <= 0).all())


def test_a_task_without_a_size_says_so():
    task = copy_task(curriculum=0.1)
    task.first_ceiling = None
    with pytest.raises(ConfigError, match="no size that could grow"):
        Curriculum(task)


def test_workers_are_refused():
    with pytest.raises(ConfigError, match="workers=0"):
        StreamData(copy_task(curriculum=0.1), 0, 4, workers=2)
    StreamData(copy_task(), 0, 4, workers=2)


def test_the_stream_draws_at_the_ceiling_of_each_sample():
    task = copy_task(curriculum=0.1)
    grown = Curriculum(task)
    grown._rises = [(0, 4), (16, 32)]
    stream = iter(TrainStream(task, 0, 0, 16, curriculum=grown))
    longest = [int(next(stream).scored.sum(1).max()) for _ in range(4)]
    assert longest[0] <= 4 < max(longest[1:])


def easy(settings: Any, **changes: Any) -> Any:
    more = {"task.curriculum": 5.0, "logger": {}, "trainer.log_every_n_steps": 1}
    return settings({**more, "trainer.max_steps": 12, "trainer.val_check_interval": 6, **changes})


def test_a_run_climbs_and_says_how_far(tmp_path: Path, settings: Any, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(module, "WINDOW", 16)
    with caplog.at_level("INFO"):
        train(easy(settings), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["curriculum_level"] == 3 * 2**3
    assert "sizes up to 6 from now on" in caplog.text
    assert summary["status"] == "completed"
    assert summary["sequences_until_solved"] is None


def test_a_resumed_run_climbs_on_as_if_nothing_had_been(
    tmp_path: Path, settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "WINDOW", 12)
    train(easy(settings), tmp_path / "whole")
    train(easy(settings, **{"trainer.max_steps": 6}), tmp_path / "first")
    train(easy(settings, ckpt_path=str(tmp_path / "first")), tmp_path / "second")
    whole, second = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "second")
    )
    for name, weight in whole["state_dict"].items():
        assert torch.equal(second["state_dict"][name], weight), name
    levels = [
        json.loads((tmp_path / name / "summary.json").read_text())["curriculum_level"]
        for name in ("whole", "second")
    ]
    assert levels[0] == levels[1] > 3


def test_the_best_checkpoint_is_of_the_largest_size(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "WINDOW", 16)
    train(easy(settings, **{"optimizer.lr": 10.0, "task.curriculum": 1e9}), tmp_path / "run")
    best, final = (
        read_checkpoint(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")
    )
    assert best["global_step"] == final["global_step"] == 12


def test_nothing_counts_as_solved_while_it_may_rise(tmp_path: Path, settings: Any) -> None:
    from mannlab.contracts import Objective

    config = easy(settings, **{"callbacks.stop_when_solved.patience": 1})
    config["task"]["curriculum"] = 1e-9
    original = build("task", "copy").objective
    type(build("task", "copy")).objective = Objective(
        original.metric, "min", solved=1e9, shown=original.shown
    )
    try:
        assert train(config, tmp_path / "grows")["status"] == "completed"
        config["task"]["curriculum"] = None
        assert train(config, tmp_path / "plain")["status"] == "solved"
    finally:
        type(build("task", "copy")).objective = original
