"""What is left of a sweep, and runs that go on in their own folder."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mannlab.__main__ import main
from mannlab.cli import resume
from mannlab.errors import ConfigError
from mannlab.sweep import jobs
from mannlab.sweep.options import Options
from mannlab.sweep.record import Lock, Sweep
from tests.sweep.conftest import Children, children

__all__ = ["children"]


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < until, paths
        time.sleep(0.02)


def interrupt_when_ready(outputs: Path, many: int, number: int = signal.SIGINT) -> threading.Thread:
    """Send this process a signal as soon as jobs hang."""

    def wait() -> None:
        until = time.monotonic() + 60
        while len(list(outputs.glob("sweeps/*/*/ready"))) < many and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def statuses(folder: Path) -> list[str]:
    return [job.status for job in Sweep.read(folder).jobs]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_every_job_and_nothing_is_lost_or_repeated(
    children: Children, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    thread = interrupt_when_ready(children.outputs, 2, number)
    folder = children("seed=1,4", "memory=dense,dnc", "sweep.jobs=2", code=130)
    thread.join()
    assert statuses(folder) == ["completed", "completed", "interrupted", "interrupted"]
    assert "resume sweep=" in capfd.readouterr().out
    record = json.loads((folder / "sweep.json").read_text())
    assert record["status"] == "interrupted"
    # What hung does so no more.
    for job in folder.glob("seed-4*"):
        (job / ".hydra" / "overrides.yaml").write_text("[seed=5]")
    assert main(["resume", f"sweep={folder}"]) == 0
    assert statuses(folder) == ["completed"] * 4
    starts = Counter(children.starts(folder))
    assert sorted(starts.values()) == [1, 1, 2, 2]
    assert all(count == (2 if name.startswith("seed-4") else 1) for name, count in starts.items())
    assert [job.attempts for job in Sweep.read(folder).jobs] == [1, 1, 2, 2]
    assert "jobs kept: 2, to be run: 2" in capfd.readouterr().err


def test_a_job_that_heeds_no_signal_is_killed(children: Children) -> None:
    thread = interrupt_when_ready(children.outputs, 1)
    folder = children("seed=4", "memory=lrua", "sweep.grace_seconds=0.3", code=130)
    thread.join()
    assert statuses(folder) == ["interrupted"]


def test_a_job_without_a_sign_of_life_is_killed(children: Children) -> None:
    folder = children("seed=1,4", "sweep.stall_minutes=0.01", "sweep.jobs=2", code=1)
    first, second = Sweep.read(folder).jobs
    assert (first.status, second.status) == ("completed", "failed")
    assert "No sign of life" in str(second.error)
    assert json.loads((second.folder / "summary.json").read_text())["status"] == "failed"


def test_failed_jobs_are_run_again_or_kept(children: Children) -> None:
    folder = children("seed=1,3", code=1)
    assert main(["resume", str(folder), "failed=keep"]) == 1
    assert len(children.starts(folder)) == 2
    (job,) = folder.glob("seed-3*")
    (job / ".hydra" / "overrides.yaml").write_text("[seed=5]")
    assert main(["resume", f"sweep={folder}", "sweep.jobs=2"]) == 0
    assert statuses(folder) == ["completed", "completed"]
    assert len(children.starts(folder)) == 3


def test_a_finished_sweep_has_nothing_left(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    folder = children("seed=1")
    assert main(["resume", f"sweep={folder}"]) == 0
    assert "jobs kept: 1, to be run: 0" in capfd.readouterr().err
    assert len(children.starts(folder)) == 1


def test_after_the_program_was_killed(children: Children) -> None:
    folder = children("seed=1,2,5,6")
    sweep = Sweep.read(folder)
    done, ended, dead, waiting = sweep.jobs
    ended.status = dead.status = "running"
    waiting.status, waiting.attempts = "waiting", 0
    for job in (dead, waiting):
        (job.folder / jobs.SUMMARY).unlink()
    sweep.status = "running"
    sweep.save()
    assert main(["resume", f"sweep={folder}"]) == 0
    assert [job.attempts for job in Sweep.read(folder).jobs] == [1, 1, 2, 1]
    starts = Counter(children.starts(folder))
    assert [starts[job.folder.name] for job in (done, ended, dead, waiting)] == [1, 1, 2, 2]


def test_a_job_that_still_runs_is_waited_for_and_not_started(children: Children) -> None:
    folder = children("seed=1")
    sweep = Sweep.read(folder)
    (job,) = sweep.jobs
    job.status = "running"
    sweep.save()
    summary = (job.folder / jobs.SUMMARY).read_text()
    (job.folder / jobs.SUMMARY).unlink()
    code = (
        "import fcntl, sys, time, pathlib; file = open(sys.argv[1] + '/.lock', 'a');"
        "fcntl.flock(file, fcntl.LOCK_EX); pathlib.Path(sys.argv[1], 'held').touch(); time.sleep(1);"
        f"pathlib.Path(sys.argv[1], 'summary.json').write_text({summary!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(job.folder)]):
        wait_for(job.folder / "held")
        assert main(["resume", f"sweep={folder}"]) == 0
    assert len(children.starts(folder)) == 1
    assert statuses(folder) == ["completed"]


def test_a_sweep_that_runs_is_left_alone(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    folder = children("seed=1")
    lock = Lock(folder)
    assert lock.take()
    assert main(["resume", f"sweep={folder}"]) == 1
    assert "is running" in capfd.readouterr().err
    lock.free()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["swep=x"], "Did you mean 'sweep'?"),
        (["failed=again"], "say what"),
        (["sweep=nowhere"], "no sweep.json"),
        (["run=nowhere"], "no config.yaml"),
        (["sweep=x", "failed=perhaps"], "failed=again or keep"),
        (["sweep=x", "sweep.devices=[0"], "Lists are [0,1]"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", *arguments]) == 1
    assert expected in capfd.readouterr().err


def test_options_of_the_sweep_may_change() -> None:
    options = Options.of({"search": {"trials": 3}})
    found = resume.changed(options, {"jobs": 4, "search.trials": 9, "options.address": "auto"})
    assert (found.jobs, found.options) == (4, {"address": "auto"})
    assert found.search is not None
    assert found.search.trials == 9
    with pytest.raises(ConfigError, match="Did you mean 'jobs'"):
        resume.changed(options, {"job": 4})
    with pytest.raises(ConfigError, match="this sweep does not search"):
        resume.changed(Options.of({}), {"search.trials": 9})
    for key in ("search", "options", "search.space"):
        with pytest.raises(ConfigError, match=f"{key}: 3 is not allowed"):
            resume.changed(options, {key: 3})


@pytest.mark.slow
def test_a_run_goes_on_in_its_own_folder(program: Callable[..., str], tmp_path: Path) -> None:
    tiny = ["task.max_length=3", "task.lengths=[4]", "controller.hidden=8", "memory=none", "trainer=cpu"]
    tiny += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "logger=csv", "threads=1"]
    program(*tiny, "trainer.max_steps=6", "trainer.val_check_interval=3", "hydra.run.dir=whole")
    folder = shutil.copytree(tmp_path / "whole", tmp_path / "part")
    # As if it had been killed after its first validation.
    first = ["trainer.max_steps=3", "trainer.val_check_interval=3", "test=false", "hydra.run.dir=first"]
    program(*tiny, *first)
    os.replace(tmp_path / "first" / "checkpoints" / "last.ckpt", folder / "checkpoints" / "last.ckpt")
    (folder / "summary.json").unlink()
    assert "at step 3" in program("resume", "run=part")
    whole, part = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "part"))
    assert part["metrics"] == whole["metrics"]
    assert part["resumed_from"].endswith("part/checkpoints/last.ckpt")
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "part")]
    assert len(rows[0]) == len(rows[1])
    said = program("resume", "part")
    assert "is finished already" in said
    # The command that it names trains on.
    command = shlex.split(said[said.index("mannlab task.max_length=3") :].splitlines()[0])
    assert command[-2:] == [f"ckpt_path={folder}", "trainer.max_steps=12"]
    program(*command[1:], "hydra.run.dir=longer")
    longer = json.loads((tmp_path / "longer" / "summary.json").read_text())
    assert (longer["steps"], longer["resumed_from"]) == (12, str(folder / "checkpoints" / "last.ckpt"))
