"""How a job ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mannlab.files import read_json
from mannlab.sweep import jobs
from mannlab.sweep.record import Job


def settled(
    folder: Path, status: str | None, code: int, stopped: str = "", asked: str = "", log: str = ""
) -> Job:
    if status is not None:
        text = json.dumps({"status": status, "error": "why" if status == "failed" else None})
        (folder / jobs.SUMMARY).write_text(text)
    if asked:
        jobs.ask_to_stop(folder, asked)
    (folder / jobs.LOG).write_text(log)
    job = Job(0, folder, ["seed=1"], "running", code=code)
    jobs.settle(job, stopped)
    return job


@pytest.mark.parametrize(
    ("status", "code", "stopped", "asked", "expected"),
    [
        ("completed", 0, "", "", "completed"),
        ("solved", 0, "", "", "solved"),
        ("failed", 1, "", "", "failed"),
        ("completed", 1, "", "", "failed"),
        ("interrupted", 130, "interrupted", "interrupted", "interrupted"),
        ("completed", 0, "interrupted", "interrupted", "completed"),
        (None, -15, "interrupted", "interrupted", "interrupted"),
        (None, -15, "interrupted", "", "interrupted"),
        (None, -9, "", "", "failed"),
        ("interrupted", 130, "pruned", "pruned", "pruned"),
        ("interrupted", 0, "", "pruned", "pruned"),
        (None, -9, "pruned", "pruned", "pruned"),
        ("failed", 1, "pruned", "pruned", "failed"),
        (None, -9, "No sign of life", "", "failed"),
    ],
)
def test_statuses(
    tmp_path: Path, status: str | None, code: int, stopped: str, asked: str, expected: str
) -> None:
    assert settled(tmp_path, status, code, stopped, asked).status == expected


def test_a_job_that_died_leaves_its_last_words(tmp_path: Path) -> None:
    job = settled(tmp_path, None, -9, log="first\nout of memory\n\n")
    assert job.error == (
        "The process ended with exit code -9 before it could say why. The last line of its log: out of memory"
    )
    assert job.traceback == "first\nout of memory\n"
    summary = json.loads((tmp_path / jobs.SUMMARY).read_text())
    assert (summary["status"], summary["overrides"]) == ("failed", ["seed=1"])


def test_a_trace_is_kept(tmp_path: Path) -> None:
    (tmp_path / jobs.TRACEBACK).write_text("Traceback ...")
    job = settled(tmp_path, "failed", 1)
    assert (job.error, job.traceback) == ("why", "Traceback ...")


def test_what_an_earlier_attempt_said_is_taken_away(tmp_path: Path) -> None:
    settled(tmp_path, "interrupted", 130, asked="interrupted")
    jobs.fresh(tmp_path)
    assert jobs.asked_to_stop(tmp_path) == ""
    assert read_json(tmp_path / jobs.SUMMARY) == {}


def test_the_command_holds_nothing_but_the_folder() -> None:
    assert jobs.command(Path("/x/a b"))[1:] == ["-m", "mannlab", "resume", "run=/x/a b"]
