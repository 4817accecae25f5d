"""Jobs that say nothing: those that hang, and those that wait in a queue."""

from __future__ import annotations

import json
import os
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mannlab.sweep import jobs, schedule
from mannlab.sweep.engines import Engine, Handle, spawn
from mannlab.sweep.live import View
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job, Sweep

STALL = 0.3  # seconds


class Cluster(Engine):
    """One whose jobs wait for a while, say a word, and end after another while.

    Args:
        queued: how long a job waits, seconds.
        silent: how long it then runs, seconds.
    """

    room = 1

    def __init__(self, queued: float, silent: float) -> None:
        self.queued, self.silent = queued, silent

    def start(self, job: Job) -> Handle:
        return Turn(job.folder, self.queued, self.silent)


class Turn(Handle):
    def __init__(self, folder: Path, queued: float, silent: float) -> None:
        self.folder, self.killed, now = folder, False, time.monotonic()
        self.begins, self.ends = now + queued, now + queued + silent

    def poll(self) -> int | None:
        now = time.monotonic()
        if now >= self.begins:
            with (self.folder / jobs.LOG).open("a") as log:
                log.write("hello\n")
            self.begins = float("inf")
        if now >= self.ends and not self.killed:
            (self.folder / jobs.SUMMARY).write_text(json.dumps({"status": "completed"}))
        return 1 if self.killed else 0 if now >= self.ends else None

    def ask(self) -> None:
        """It cannot be asked."""

    def kill(self) -> None:
        self.killed = True


def run(folder: Path, engine: Engine) -> Job:
    folder.mkdir(exist_ok=True)
    job = Job(0, folder, [])
    sweep = Sweep(folder.parent, options=Options(stall_minutes=STALL / 60))
    view = View(Console(file=StringIO()))
    schedule.Schedule(sweep, engine, schedule.Listed([job]), view).run()
    return job


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL", 0.01)
    monkeypatch.setattr(schedule, "LOOK", 0.01)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_job_may_wait_in_a_queue(tmp_path: Path, earlier: bool) -> None:
    folder = tmp_path / "job"
    if earlier:
        folder.mkdir()
        (folder / jobs.LOG).write_text("of an earlier attempt\n")
    assert run(folder, Cluster(queued=3 * STALL, silent=0)).status == "completed"


def test_a_job_that_began_and_hangs_is_killed(tmp_path: Path) -> None:
    job = run(tmp_path / "job", Cluster(queued=0, silent=60))
    assert (job.status, "No sign of life" in str(job.error)) == ("failed", True)


def test_a_process_that_says_nothing_has_begun(tmp_path: Path) -> None:
    log = tmp_path / jobs.LOG
    log.touch()
    os.utime(log, (1e9, 1e9))
    assert spawn(tmp_path, os.environ, ["true"]).wait() == 0
    assert log.stat().st_mtime > 1e9


def test_a_job_that_waits_for_another_machine_does_not_hang(tmp_path: Path) -> None:
    class Moved(Cluster):
        def start(self, job: Job) -> Handle:
            (job.folder / jobs.QUEUED).touch()
            return super().start(job)

    assert run(tmp_path / "job", Moved(queued=0, silent=3 * STALL)).status == "completed"
