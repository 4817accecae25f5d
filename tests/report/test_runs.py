"""Runs as they lie in folders, whole and broken."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from mannlab.errors import ConfigError
from mannlab.report import runs
from tests.report import making


def test_a_finished_run(tmp_path: Path) -> None:
    folder = making.run(tmp_path / "a", 0.5, seed=3, pictures=["test_stream"])
    (found,) = runs.collect([tmp_path])
    assert (found.folder, found.status, found.task, found.seed) == (folder, "completed", "copy", 3)
    assert found.finished
    assert found.metrics["test/bit_errors"] == 0.5
    assert found.options["memory.slots"] == 128
    assert found.command == "python -m mannlab seed=3"
    assert found.sequences_a_step == making.BATCH
    assert [path.name for path in found.pictures()] == ["test_stream.png"]
    assert found.scalars.curves["val/bit_errors"]


def test_commands_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    making.run(tmp_path / "a", overrides=["task.lengths=[1,2]", "note=a b; rm -rf $HOME"])
    (found,) = runs.collect([tmp_path])
    assert found.command == "python -m mannlab 'task.lengths=[1,2]' 'note=a b; rm -rf $HOME'"


def test_a_run_that_is_running_and_one_that_was_killed(tmp_path: Path) -> None:
    making.run(tmp_path / "new", None)
    old = making.run(tmp_path / "old", None)
    (tmp_path / "new" / ".hydra").mkdir()
    (tmp_path / "new" / ".hydra" / "overrides.yaml").write_text("- task=copy\n- seed=1\n")
    then = time.time() - 3 * 86400
    for path in [*old.iterdir(), old]:
        os.utime(path, (then, then))
    new, dead = runs.collect([tmp_path])
    assert (new.status, new.finished, new.command) == (
        "running",
        False,
        "python -m mannlab task=copy seed=1",
    )
    assert (dead.status, dead.finished, dead.command) == ("unfinished", False, None)
    assert "3 days ago" in dead.problem


@pytest.mark.parametrize("text", ["", "{", '{"status": "comp', "[]", "null", "\0\0"])
def test_a_half_written_summary(tmp_path: Path, text: str) -> None:
    folder = making.run(tmp_path / "a")
    (folder / "summary.json").write_text(text)
    (found,) = runs.collect([tmp_path])
    assert found.status == "running"
    assert found.metrics == {}
    assert "summary.json" in found.problem


@pytest.mark.parametrize("text", ["", "a: [", "just words", "controller: 3", "\t\0"])
def test_a_broken_configuration_is_taken_from_the_summary(tmp_path: Path, text: str) -> None:
    folder = making.run(tmp_path / "a", config=making.config(7))
    (folder / "config.yaml").write_text(text)
    (found,) = runs.collect([tmp_path])
    assert (found.status, found.seed, found.task) == ("completed", 7, "copy")


def test_a_run_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    folder = making.run(tmp_path / "a")
    (folder / "config.yaml").write_text("")
    (folder / "summary.json").write_text("{")
    (found,) = runs.collect([tmp_path])
    assert (found.status, found.task, found.finished) == ("broken", "", False)


def test_a_job_that_died_before_it_could_say_why(tmp_path: Path) -> None:
    said = {"status": "failed", "error": "killed", "overrides": ["task=copy"], "objective": {}, "metrics": {}}
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "summary.json").write_text(json.dumps(said))
    (found,) = runs.collect([tmp_path])
    assert (found.status, found.problem, found.task) == ("failed", "killed", "copy")


def test_strange_values_in_a_summary(tmp_path: Path) -> None:
    strange = {"metrics": {"test/a": None, "test/b": "x", "test/c": True, "test/d": [1], "test/e": 2}}
    making.run(tmp_path / "a", **strange, objective=None, overrides=None, steps="many", error=5)
    (found,) = runs.collect([tmp_path])
    assert found.metrics == {"test/e": 2.0}
    assert found.objective == {}
    assert found.overrides == []
    assert found.sequences_a_step == making.BATCH
    assert found.problem == "5"


def test_what_is_no_run_is_passed_over(tmp_path: Path) -> None:
    making.run(tmp_path / "outputs" / "copy" / "a")
    making.run(tmp_path / "outputs" / ".trash" / "b")
    (tmp_path / "outputs" / "conf").mkdir()
    (tmp_path / "outputs" / "conf" / "config.yaml").write_text("defaults: [task: copy]\n")
    (tmp_path / "outputs" / "other").mkdir()
    (tmp_path / "outputs" / "other" / "summary.json").write_text('{"score": 3}')
    assert [run.folder.name for run in runs.collect([tmp_path / "outputs"])] == ["a"]


def test_each_run_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = making.run(tmp_path / "outputs" / "a")
    monkeypatch.chdir(tmp_path)
    given = ["outputs", folder, "outputs/a/summary.json", tmp_path / "outputs" / "a" / "config.yaml"]
    assert len(runs.collect(given)) == 1


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no runs in"):
        runs.collect([tmp_path])
    with pytest.raises(ConfigError, match="is no folder"):
        runs.collect([tmp_path / "missing"])


def test_the_same_run_made_again_counts_once(tmp_path: Path) -> None:
    old, new = making.run(tmp_path / "b"), making.run(tmp_path / "a", changed={"outputs": "elsewhere"})
    for path in [*old.iterdir(), old]:
        os.utime(path, (1e9, 1e9))
    making.run(tmp_path / "c", seed=2)
    making.run(tmp_path / "d", changed={"memory__slots": 64})
    making.run(tmp_path / "e", status="failed")
    found = {run.folder.name: run for run in runs.collect([tmp_path])}
    assert found["b"].repeats == new
    assert not found["b"].finished
    assert all(run.repeats is None for name, run in found.items() if name != "b")


def test_a_running_run_goes_with_those_of_its_data(tmp_path: Path) -> None:
    making.run(tmp_path / "a", task_label="copy-real")
    making.run(tmp_path / "b", None, seed=2)
    making.run(tmp_path / "c", None, changed={"task__bits": 4})
    assert [run.task for run in runs.collect([tmp_path])] == ["copy-real", "copy-real", "copy"]
