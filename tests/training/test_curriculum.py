"""Sizes that grow as the task is learnt."""

from __future__ import annotations

import hashlib
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
    """One rank of several; ``others`` are the sums of the other ranks (by default as its own)."""

    def __init__(self, world: int = 1, others: list[float] | None = None) -> None:
        def reduce(sums: Any, reduce_op: str) -> Any:
            assert reduce_op == "sum"
            return sums * world if others is None else sums + torch.tensor(others, dtype=torch.float64)

        self.world_size, self.is_global_zero = world, True
        self.strategy = SimpleNamespace(
            reduce=reduce,
            root_device=torch.device("cpu"),
            all_gather=lambda sums: torch.stack([sums] * world),
        )


class Stream:
    """Batches of 64 sequences, counted as they come."""

    def __init__(self, grown: Curriculum, trainer: Any = None, drawn: int = 0) -> None:
        self.grown, self.trainer, self.drawn = grown, trainer or Trainer(), drawn

    def take(self, cost_nats: float, batches: int = 1) -> int | None:
        """The ceiling after some more batches of that cost."""
        ahead = 64 * self.trainer.world_size
        for _ in range(batches):
            self.grown.note(*batch_of(cost_nats), self.drawn)
            self.drawn += ahead
            self.grown.step(self.drawn, ahead, self.trainer)
        return self.grown.ceiling


def batch_of(cost_nats: float, count: int = 64) -> tuple[Score, Batch]:
    """Sequences of one scored step of 3 bits, each of that cost."""
    empty = torch.zeros(count, 1, 3)
    return Score(torch.tensor(cost_nats), {}), Batch({"x": empty}, empty, torch.ones(count, 1))


def copy_task(**options: Any) -> Any:
    return build("task", "copy", bits=3, max_length=4, **options)


def test_the_ceiling_doubles_when_sequences_cost_little():
    stream = Stream(Curriculum(copy_task(curriculum=0.1)))
    dear, cheap = 0.11 * 3 * 0.6931472, 0.09 * 3 * 0.6931472
    assert stream.take(dear, 4) == 4
    assert stream.take(cheap, 3) == 4, "the window is not full"
    assert stream.take(cheap) == 8
    assert stream.take(cheap, module.LAG + 3) == 8
    assert stream.take(cheap) == 16
    assert stream.take(dear, 40) == 16
    assert stream.grown.running


def test_what_was_drawn_before_a_rise_does_not_count_after_it():
    task = copy_task(curriculum={"threshold": 0.1, "window": 64})
    stream = Stream(Curriculum(task))
    seen = [stream.take(0.01) for _ in range(11)]
    assert seen == [8] * 5 + [16] * 5 + [32]
    assert stream.take(1.0, 20) == 64 // 2


def test_a_step_counts_its_batches_and_an_unfinished_one_counts_nothing():
    grown = Curriculum(copy_task(curriculum={"threshold": 0.1, "window": 128}))
    grown.note(*batch_of(0.01), 0)
    assert grown.state_dict(Trainer())["seen"] == 0
    grown.note(*batch_of(0.01), 64)
    grown.step(128, 64, Trainer())
    assert grown.ceiling == 8


def test_ranks_decide_together():
    threshold = 0.1 * 3 * 0.6931472
    for others, ceiling in ((2.1 * threshold, 4), (1.8 * threshold, 8)):
        trainer = Trainer(2, others=[128 * others / 2, 128 * 3.0])
        stream = Stream(Curriculum(copy_task(curriculum=0.1)), trainer)
        assert stream.take(threshold, 1) == 4
        assert stream.take(threshold, 1) == ceiling, "two batches on each of two ranks fill the window"


def test_every_rank_goes_on_with_its_own_sums():
    grown = Curriculum(copy_task(curriculum=0.1))
    Stream(grown, Trainer(2)).take(0.01)
    state = grown.state_dict(Trainer(2))
    state["sums"][1][0] += 1.0
    for rank in (0, 1):
        again = Curriculum(copy_task(curriculum=0.1))
        again.load_state_dict(state, 256, rank, 2)
        assert again.state_dict(Trainer())["sums"] == [state["sums"][rank]]
        assert again.state_dict(Trainer())["seen"] == 128
    alone = Curriculum(copy_task(curriculum=0.1))
    alone.load_state_dict(state, 256, 0, 1)
    assert alone.state_dict(Trainer()) == {"rises": [[0, 4]], "seen": 0, "sums": [[0.0, 0.0]]}


def test_a_rise_shows_after_the_batches_that_are_drawn_ahead():
    stream = Stream(Curriculum(copy_task(curriculum=0.1)))
    stream.take(0.01, 4)
    assert stream.grown.at(255 + 4 * 64) == 4
    assert stream.grown.at(256 + 4 * 64) == 8


@pytest.mark.parametrize(
    ("asked", "plan"),
    [
        (True, (0.1, 4, None, 256)),
        (0.3, (0.3, 4, None, 256)),
        ({"start": 2, "max": 9}, (0.1, 2, 9, 256)),
        ({"threshold": 1, "window": 32, "max": None}, (1.0, 4, None, 32)),
        ({}, (0.1, 4, None, 256)),
    ],
)
def test_what_can_be_asked_for(asked, plan):
    assert Curriculum(copy_task(curriculum=asked)).plan == module.Plan(*plan)


@pytest.mark.parametrize("asked", [None, False])
def test_what_asks_for_none(asked):
    assert Curriculum(copy_task(curriculum=asked)).plan is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (0, "threshold of 0 is not allowed"),
        (-0.5, "threshold of -0.5"),
        ({"windows": 3}, "Did you mean 'window'"),
        ({"window": 0}, "at least 1"),
        ({"start": 0}, "smallest size, 1"),
        ({"start": 1.5}, "allowed: int"),
        ({"max": 3}, "task.curriculum.max: 3 is less than the largest size at first, 4"),
        ("yes", "allowed: bool | float | mapping | null"),
    ],
)
def test_what_is_refused(asked, words):
    with pytest.raises(ConfigError) as error:
        Curriculum(copy_task(curriculum=asked))
    assert words in str(error.value)


def test_omniglot_has_no_more_classes_than_labels():
    asked = {"max": 6}
    with pytest.raises(ConfigError, match="more than this task can draw, 5"):
        Curriculum(build("task", "omniglot", classes=5, curriculum=asked, source="glyphs"))
    plan = Curriculum(build("task", "omniglot", classes=5, curriculum=True, source="glyphs")).plan
    assert plan == module.Plan(0.5, 2, 5, 256)


def test_a_maximum_that_is_no_power_of_two_is_reached():
    stream = Stream(Curriculum(copy_task(curriculum={"max": 7})))
    assert stream.take(0.01, 4) == 7
    assert not stream.grown.running
    assert stream.take(0.01, 40) == 7


def test_it_stops_at_the_last_ceiling():
    task = build("task", "omniglot", classes=5, curriculum=10.0, source="glyphs")
    stream = Stream(Curriculum(task))
    assert sorted({stream.take(0.0) for _ in range(30)}) == [2, 4, 5]
    assert not stream.grown.running


def test_no_curriculum():
    stream = Stream(Curriculum(copy_task()))
    assert stream.take(0.0, 20) is stream.grown.at(10) is None
    assert not stream.grown.running


def test_without_a_curriculum_samples_are_what_they_were():
    digests = {
        name: hashlib.sha256(
            build("task", name).batch(Split("train"), Draws(0, "train"), 5, 40).targets.numpy().tobytes()
        ).hexdigest()[:16]
        for name in ("copy", "associative_recall")
    }
    assert digests == {"copy": "0daf4080b62fe3ea", "associative_recall": "1466305113dc7751"}


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("copy", {"min_length": 3, "bucket": 1}, "sequence_lengths"),
        ("associative_recall", {"min_items": 3, "bucket": 1}, "item_counts"),
    ],
)
def test_sizes_are_uniform_up_to_the_ceiling(name, options, sizes):
    task = build("task", name, **options)
    drawn = getattr(task, sizes)(Split("train", ceiling=32), Draws(0, "train"), 0, 30_000)
    counts = torch.bincount(torch.as_tensor(drawn), minlength=33)
    assert counts[:3].sum() == 0
    assert (counts[3:].float() / 1000 - 1).abs().max() < 0.15


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
    batch = task.batch(Split("train", ceiling=5), Draws(0, "train"), 8, 16)
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


def test_a_run_climbs_and_says_how_far(tmp_path: Path, settings: Any, caplog: Any) -> None:
    asked = {"threshold": 5.0, "window": 16}
    with caplog.at_level("INFO"):
        train(easy(settings, **{"task.curriculum": asked, "trainer.max_steps": 30}), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # Four batches fill the window, four more were drawn before the rise: at steps 4, 12, 20 and 28.
    assert summary["curriculum_level"] == 3 * 2**4
    assert "sizes up to 6 from now on" in caplog.text
    assert summary["status"] == "completed"
    assert summary["sequences_until_solved"] is None


@pytest.mark.parametrize(
    "more", [{}, {"trainer.accumulate_grad_batches": 2, "trainer.val_check_interval": 3}]
)
def test_a_resumed_run_climbs_on_as_if_nothing_had_been(
    tmp_path: Path, settings: Any, more: dict[str, Any]
) -> None:
    more = {"task.curriculum": {"threshold": 5.0, "window": 12}} | more
    train(easy(settings, **more), tmp_path / "whole")
    train(easy(settings, **more, **{"trainer.max_steps": 6}), tmp_path / "first")
    train(easy(settings, **more, ckpt_path=str(tmp_path / "first")), tmp_path / "second")
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


@pytest.mark.parametrize(
    ("asked", "rises"),
    [
        ({"threshold": 0.2}, [[0, 4], [320, 8]]),
        ({"threshold": 0.1, "start": 6}, [[0, 4], [320, 8]]),
        ({"threshold": 0.1, "start": 20}, [[0, 4], [320, 8], [256, 20]]),
        ({"threshold": 0.1, "max": 5}, [[0, 4], [320, 8], [256, 5]]),
    ],
)
def test_a_run_that_goes_on_keeps_its_level_between_the_plans_ends(
    asked: dict[str, Any], rises: list[list[int]]
) -> None:
    state = {"rises": [[0, 4], [320, 8]], "seen": 32, "sums": [[1.0, 8.0]]}
    grown = Curriculum(copy_task(curriculum=asked))
    grown.load_state_dict(state, 256)
    as_before = grown.ceiling == 8
    assert grown.state_dict(Trainer()) == {
        "rises": rises,
        "seen": 32 if as_before else 0,
        "sums": [[1.0, 8.0] if as_before else [0.0, 0.0]],
    }
    assert [grown.at(sample) for sample in (0, 255)] == [4, 4]
    assert grown.at(256) == (4 if as_before else rises[-1][1])
    assert grown.at(320) == grown.ceiling == rises[-1][1]


@pytest.mark.slow
def test_a_run_goes_on_with_another_curriculum_or_none(
    tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    easily = {"threshold": 5.0, "window": 12, "max": 12}
    train(easy(settings, **{"task.curriculum": easily, "trainer.max_steps": 6}), tmp_path / "first")
    start = {"ckpt_path": str(tmp_path / "first"), "trainer.val_check_interval": 3}
    reached = read_checkpoint(tmp_path / "first" / "checkpoints" / "last.ckpt")["StreamData"]["curriculum"]
    assert reached["rises"][-1][1] > 5
    with caplog.at_level("INFO"):
        lower = train(
            easy(settings, **{"task.curriculum": {**easily, "max": 5}}, **start), tmp_path / "lower"
        )
        plain = train(easy(settings, **{"task.curriculum": None}, **start), tmp_path / "plain")
    assert "goes on with task.curriculum.max=5 (before: 12)" in caplog.text
    assert lower["curriculum_level"] == 5
    assert plain.get("curriculum_level") is None
    saved = read_checkpoint(tmp_path / "plain" / "checkpoints" / "best.ckpt")
    assert saved["global_step"] > 6, "the best of all sizes, not of the small ones"
    assert "curriculum" not in saved["StreamData"]


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
