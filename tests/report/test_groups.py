"""What runs differ in, and which are averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mannlab.errors import ConfigError
from mannlab.report import groups, runs
from mannlab.report.groups import Section
from tests.report import making


def sections(folder: Path, *by: str, metric: tuple[str, ...] = ()) -> list[Section]:
    return groups.sections(runs.collect([folder]), by, metric)


def only(folder: Path, *by: str, metric: tuple[str, ...] = ()) -> Section:
    (found,) = sections(folder, *by, metric=metric)
    return found


def grid(folder: Path, *changes: dict[str, Any], seeds: int = 2) -> None:
    """A run for each change and seed; its value is 10 for each change before, plus the seed."""
    for index, changed in enumerate(changes):
        for seed in range(1, seeds + 1):
            making.run(folder / f"{index}-{seed}", 10.0 * index + seed, seed, changed, curve=None)


LSTM: dict[str, Any] = {}
FEEDFORWARD = {"controller": {"name": "feedforward", "width": 64, "layers": 2}}


def test_by_default_runs_are_told_apart_by_what_differs_but_the_seed(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, FEEDFORWARD, {"memory__slots": 64})
    found = only(tmp_path)
    # That the hidden size differs follows from the controller.
    assert found.keys == ["controller.name", "memory.slots"]
    assert [group.label for group in found.groups] == [
        "feedforward, slots=128",
        "lstm, slots=64",
        "lstm, slots=128",
    ]
    assert [len(group.runs) for group in found.groups] == [2, 2, 2]


def test_options_of_the_task_count_even_where_the_controller_tells_runs_apart(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, {**FEEDFORWARD, "task__bits": 4})
    assert "task.bits" in only(tmp_path).keys
    assert "task.bits" in only(tmp_path, "controller").keys


def test_a_run_that_another_went_on_from_does_not_count(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, seeds=1)
    going_on = making.run(tmp_path / "on", 1.0, 1, {"trainer__max_steps": 500}, curve=None)
    path = going_on / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"resumed_from": str(tmp_path / "0-1/checkpoints/last.ckpt")}))
    found = only(tmp_path, "memory")
    assert [run.folder.name for run in found.runs if run.repeats is None] == ["on"]


def test_how_a_run_was_kept_does_not_tell_it_apart(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, {"threads": 2, "outputs": "x", "logger__csv__flush": 1, "batch_size": 4})
    assert only(tmp_path).keys == []
    assert [group.label for group in only(tmp_path).groups] == ["copy"]


def test_groups_by_given_keys(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, FEEDFORWARD, {"memory__slots": 64})
    for key in ("slots", "memory.slots"):
        found = only(tmp_path, key)
        assert found.keys == ["memory.slots"]
        assert [(group.label, len(group.runs)) for group in found.groups] == [
            ("slots=64", 2),
            ("slots=128", 4),
        ]
    both = only(tmp_path, "memory", "controller")
    assert both.keys == ["memory.name", "controller.name"]
    assert [group.label for group in both.groups] == ["dense, feedforward", "dense, lstm"]
    assert [len(group.runs) for group in only(tmp_path, "seed").groups] == [3, 3]


def test_classes_are_called_by_their_last_name(tmp_path: Path) -> None:
    grid(tmp_path, {"scheduler___target_": "a.b.Cosine"}, {"scheduler___target_": None})
    assert [group.label for group in only(tmp_path).groups] == ["scheduler=Cosine", "scheduler=none"]
    assert only(tmp_path, "optimizer").groups[0].label == "optimizer=Adam"


def test_means_are_over_the_runs_of_a_group(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, FEEDFORWARD)
    feedforward, lstm = only(tmp_path).groups
    value = lstm.estimate("test/bit_errors")
    assert value is not None
    assert (value.mean, value.values) == (1.5, (1.0, 2.0))
    assert value.half == pytest.approx(12.706 * 0.5, abs=1e-3)
    assert feedforward.estimate("test/nothing") is None


def test_only_runs_that_finished_are_averaged(tmp_path: Path) -> None:
    making.run(tmp_path / "a", 1.0, 1)
    making.run(tmp_path / "b", 3.0, 2, status="solved")
    making.run(tmp_path / "c", 100.0, 3, status="failed", error="ValueError: bad")
    making.run(tmp_path / "d", 100.0, 4, status="interrupted")
    making.run(tmp_path / "e", None, 5)
    (group,) = only(tmp_path).groups
    value = group.estimate("test/bit_errors")
    assert value is not None
    assert value.mean == 2.0
    assert group.others == {"failed": 1, "interrupted": 1, "running": 1}
    assert len(group.counted) == 2


def test_tasks_are_never_averaged(tmp_path: Path) -> None:
    making.run(tmp_path / "a", 1.0)
    making.run(tmp_path / "b", 2.0, changed={"task": {"name": "recall", "items": 3}})
    making.run(tmp_path / "c", 3.0, 2, changed={"task__bits": 4})
    copy, recall = sections(tmp_path, "controller")
    assert (copy.task, recall.task) == ("copy", "recall")
    # Another width of the same task is another task, whatever was asked for.
    assert copy.keys == ["controller.name", "task.bits"]
    assert [group.label for group in copy.groups] == ["lstm, bits=4", "lstm, bits=8"]


def test_runs_that_cannot_be_read_come_last(tmp_path: Path) -> None:
    making.run(tmp_path / "a")
    broken = making.run(tmp_path / "b")
    (broken / "config.yaml").write_text("")
    (broken / "summary.json").write_text("")
    assert [section.task for section in sections(tmp_path)] == ["copy", ""]


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, {"memory__slots": 64})
    with pytest.raises(ConfigError, match="Did you mean 'memory'") as refused:
        sections(tmp_path, "memoy")
    assert "differ in: memory.slots" in str(refused.value)
    grid(tmp_path / "more", {"task__slots": 3})
    with pytest.raises(ConfigError, match=r"memory\.slots, task\.slots"):
        sections(tmp_path, "slots")


# ---------------------------------------------------------------------- metrics


def test_the_objective_and_what_the_task_shows_are_the_metrics(tmp_path: Path) -> None:
    making.run(tmp_path / "a")
    found = only(tmp_path)
    assert found.metrics == ["bit_errors", "cost_bits"]
    assert (found.objective, found.mode, found.split) == ("cost_bits", "min", "test")


def test_summaries_without_it_and_running_runs_are_asked_by_their_log(tmp_path: Path) -> None:
    making.run(tmp_path / "a", objective={"metric": "cost_bits", "mode": "min", "value": 2.0})
    assert only(tmp_path).metrics == ["bit_errors", "cost_bits"]
    making.run(tmp_path / "b" / "running", None)
    running = only(tmp_path / "b")
    assert (running.metrics, running.mode) == (["bit_errors", "cost_bits"], None)


def test_validation_is_compared_where_nothing_was_tested(tmp_path: Path) -> None:
    making.run(tmp_path / "a", metrics={"val/bit_errors": 3.0})
    found = only(tmp_path)
    assert (found.split, found.full("bit_errors")) == ("val", "val/bit_errors")


def test_without_a_test_the_best_validation_counts_as_in_a_sweep(tmp_path: Path) -> None:
    # The second ends better, but its best checkpoint is worse.
    for seed, last, best in ((1, 0.9, 0.1), (2, 0.5, 0.4)):
        said = {"metric": "cost_bits", "mode": "min", "value": best, "shown": "bit_errors"}
        metrics = {"val/cost_bits": last, "val/bit_errors": last}
        changed = {"memory__slots": 64 * seed}
        making.run(tmp_path / str(seed), seed=seed, changed=changed, metrics=metrics, objective=said)
    found = only(tmp_path)
    assert [run.metrics["val/cost_bits"] for run in found.runs] == [0.1, 0.4]
    assert [group.label for group in found.best(found.full("cost_bits"))] == ["slots=64"]
    making.run(tmp_path / "tested", 3.0, objective={"metric": "cost_bits", "mode": "min", "value": 6.5})
    (tested,) = runs.collect([tmp_path / "tested"])
    assert tested.metrics["val/cost_bits"] == 6.0


def test_metrics_can_be_chosen(tmp_path: Path) -> None:
    making.run(tmp_path / "a")
    assert only(tmp_path, metric=("cost_bits",)).metrics == ["cost_bits"]
    assert only(tmp_path, metric=("test_length_20/bit_errors",)).metrics == ["test_length_20/bit_errors"]
    assert only(tmp_path, metric=("loss_nats",)).metrics == ["loss_nats"]
    with pytest.raises(ConfigError, match="Did you mean 'bit_errors'"):
        sections(tmp_path, metric=("bit_error",))


def test_the_best_group_follows_the_direction_of_the_metric(tmp_path: Path) -> None:
    grid(tmp_path, LSTM, FEEDFORWARD, seeds=3)
    found = only(tmp_path)
    assert found.direction("cost_bits") == "min"
    assert found.best("test/cost_bits") == [found.groups[1]]
    found.mode = "max"
    assert found.direction("cost_bits") == "max"
    assert found.best("test/cost_bits") == [found.groups[0]]
    assert found.direction("test/accuracy_percent") == "max"
    assert found.direction("perplexity_per_token") == "min"
    assert found.direction("unheard_of") is None
    assert found.best("test/unheard_of") == []


def test_nobody_is_best_alone_or_among_equals(tmp_path: Path) -> None:
    making.run(tmp_path / "a", 1.0)
    assert only(tmp_path).best("test/cost_bits") == []
    making.run(tmp_path / "b", 1.0, changed=FEEDFORWARD)
    assert only(tmp_path).best("test/cost_bits") == []


def test_groups_whose_intervals_touch_are_alike(tmp_path: Path) -> None:
    for seed, (one, other, third) in enumerate([(1.0, 1.2, 9.0), (1.1, 1.1, 9.1), (1.2, 1.0, 9.2)]):
        making.run(tmp_path / f"a{seed}", one, seed)
        making.run(tmp_path / f"b{seed}", other + 0.05, seed, FEEDFORWARD)
        making.run(tmp_path / f"c{seed}", third, seed, {"memory": {"name": "none"}})
    found = only(tmp_path)
    best = found.best("test/cost_bits")
    assert len(found.groups) == 3
    assert len(best) == 2
    (worst,) = (group for group in found.groups if group not in best)
    assert worst.runs[0].config["memory"] == {"name": "none"}


# ---------------------------------------------------------------------- sizes


def test_sizes_are_those_that_the_summary_names(tmp_path: Path) -> None:
    making.run(tmp_path / "a")
    found = only(tmp_path)
    names = [(size, f"test_length_{size}/bit_errors") for size in making.SIZES]
    assert found.sizes("bit_errors") == {"length": names}
    assert found.sizes("cost_bits") == {}
    assert found.trained("length") == 20


def test_sizes_are_those_of_all_runs(tmp_path: Path) -> None:
    for name, seed, sizes in (("a", 1, (20, 40)), ("b", 2, (20, 80))):
        metrics = {f"test_length_{size}/bit_errors": float(size) for size in sizes}
        levels = {f"test_length_{size}": size for size in sizes}
        generalisation = {"levels": levels, "trained": 20}
        making.run(tmp_path / name, seed=seed, metrics=metrics, generalisation=generalisation)
    (found,) = only(tmp_path).sizes("bit_errors").values()
    assert [size for size, _ in found] == [20, 40, 80]


def test_older_summaries_name_sizes_in_their_metrics(tmp_path: Path) -> None:
    making.run(tmp_path / "a", generalisation=None)
    found = only(tmp_path)
    assert list(found.sizes("bit_errors")) == ["length"]
    assert found.trained("length") is None


def test_numbers_that_are_no_sizes(tmp_path: Path) -> None:
    metrics = {"test/a": 1.0, "test_way_5/a": 1.0, "test_way_20/a": 2.0}
    making.run(tmp_path / "a", metrics=metrics, generalisation={"levels": {}, "trained": None})
    assert only(tmp_path).sizes("a") == {}


def test_sizes_of_training_by_kind_and_in_dispute(tmp_path: Path) -> None:
    levels = {"test_length_10": 10, "test_length_20": 20, "test_repeats_10": 10}
    making.run(tmp_path / "a", generalisation={"levels": levels, "trained": {"length": 9, "repeats": 7}})
    found = only(tmp_path)
    assert (found.trained("length"), found.trained("repeats")) == (9, 7)
    making.run(tmp_path / "b", seed=2, generalisation={"levels": levels, "trained": {"length": 8}})
    assert only(tmp_path).trained("length") is None
