"""The file that says how a sweep is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mannlab.errors import ConfigError
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job, Lock, Sweep, settings


def sweep(folder: Path) -> Sweep:
    good = Job(0, folder / "a", ["memory=dense", "seed=1"], "completed", 1, 2.5, code=0, trial=4)
    good.summary = {
        "steps": 7,
        "objective": {"metric": "errors", "mode": "min", "value": 0.5},
        "task": "copy",
    }
    good.summary["metrics"] = {"test/errors": 0.5}
    bad = Job(1, folder / "b", ["memory=none", "+seed=1"], "failed", 1, error="too bad", traceback="Trace")
    return Sweep(folder, [good, bad, Job(2, folder / "c", ["seed=3"])], Options(jobs=3))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    before = sweep(tmp_path)
    before.save()
    after = Sweep.read(tmp_path)
    assert [job.record() for job in after.jobs] == [job.record() for job in before.jobs]
    assert after.options == before.options
    assert after.jobs[0].value == 0.5


def test_the_file_is_for_programs(tmp_path: Path) -> None:
    sweep(tmp_path).save()
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert found["status"] == "running"
    assert found["counts"] == {"completed": 1, "failed": 1, "waiting": 1}
    first, second, third = found["jobs"]
    assert (first["folder"], first["metric"], first["mode"], first["value"]) == ("a", "errors", "min", 0.5)
    assert (second["error"], second["traceback"], second["value"]) == ("too bad", "Trace", None)
    assert (third["status"], third["attempts"]) == ("waiting", 0)
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    assert rows[0] == "folder,memory,seed,status,steps,seconds,test/errors"
    assert rows[1] == "a,dense,1,completed,7,2.5,0.5"


def test_the_exit_code_tells() -> None:
    def code(*statuses: str, status: str = "done") -> int:
        jobs = [Job(i, Path("x"), [], one) for i, one in enumerate(statuses)]
        return Sweep(Path("x"), jobs, status=status).code

    assert code("completed", "solved", "pruned") == 0
    assert code("completed", "failed") == 1
    assert code("completed", "waiting", status="interrupted") == 130
    assert code("failed", "waiting", status="interrupted") == 1


def test_what_is_unfinished(tmp_path: Path) -> None:
    found = sweep(tmp_path)
    assert [job.number for job in found.unfinished()] == [1, 2]
    assert [job.number for job in found.unfinished(failed=False)] == [2]


def test_a_file_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no sweep\.json"):
        Sweep.read(tmp_path)
    (tmp_path / "sweep.json").write_text('{"jobs": [')
    with pytest.raises(ConfigError, match="cannot be read"):
        Sweep.read(tmp_path)


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    assert not second.held()
    assert first.take()
    assert second.held()
    assert not second.take()
    first.free()
    assert not second.held()
    assert second.take()
    second.free()


def test_overrides_as_keys_and_values() -> None:
    assert settings(["a.b=1", "+c=x=y", "d="]) == {"a.b": "1", "c": "x=y", "d": ""}
