"""A job's folder, its process, and how it ended."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mannlab.cli import errors
from mannlab.files import read_json, write_json
from mannlab.sweep.record import FAILED, INTERRUPTED, Job

LOG, TRACEBACK, PROGRESS, STOP = "job.log", "traceback.txt", "progress.json", "stop"
SUMMARY = "summary.json"
QUEUED = "queued"  # the file of a job that had to leave its machine, and waits for another
PRUNED = "pruned"
TAIL = 30  # lines of a dead job's output to keep
PARENT, GRACE = "MANNLAB_PARENT", "MANNLAB_GRACE"

# A job that found these would believe to be a part of another run.
LEAKS = {
    "LOCAL_RANK",
    "RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
}
# SLURM: Lightning would wait for processes that nobody starts.
LEAKING_PREFIXES = ("PL_", "TORCHELASTIC_", "SLURM_", PARENT, GRACE)


# ---------------------------------------------------------------------- the process


def home() -> str:
    """The folder that holds this package."""
    return str(Path(__file__).resolve().parents[2])


def reachable(environment: Mapping[str, str]) -> str:
    """``PYTHONPATH`` with which a process finds the same mannlab, from whatever folder it is started."""
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join(paths if home() in paths else [*paths, home()])


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a job: what the user had, without traces of other runs."""
    kept = {
        key: value
        for key, value in environment.items()
        if key not in LEAKS and not key.startswith(LEAKING_PREFIXES)
    }
    errors.restore(kept)
    kept["PYTHONPATH"] = reachable(kept)
    return kept


def command(folder: Path) -> list[str]:
    """The command of a job: it needs nothing but the folder, where its configuration is stored.

    So do the further processes that Lightning starts for it with the same arguments.
    """
    return [sys.executable, "-m", "mannlab", "resume", f"run={folder}"]


# ---------------------------------------------------------------------- before and after


def fresh(folder: Path) -> None:
    """Take away what an earlier attempt said about its end."""
    for name in (SUMMARY, TRACEBACK, STOP, QUEUED):
        (folder / name).unlink(missing_ok=True)


def ask_to_stop(folder: Path, why: str) -> None:
    """Leave word in a job's folder; it ends after the present step, wherever it runs."""
    (folder / STOP).write_text(f"{why}\n", encoding="utf-8")


def asked_to_stop(folder: Path) -> str:
    """Why a job was asked to stop; empty if it was not."""
    try:
        return (folder / STOP).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def tail(path: Path, lines: int = TAIL) -> list[str]:
    """The last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            return [raw.decode(errors="replace").rstrip("\n") for raw in deque(file, maxlen=lines)]
    except OSError:
        return []


def settle(job: Job, stopped: str = "") -> None:
    """Note how a job ended, from its summary, or without one if it died too early to write it.

    Args:
        job: its process has ended; ``code`` is set.
        stopped: why the sweep killed it, or asked it to stop.
    """
    job.summary = read_json(job.folder / SUMMARY)
    asked = asked_to_stop(job.folder)
    job.error = job.traceback = None
    if asked == PRUNED and job.summary.get("status") not in (FAILED, None):
        job.status = PRUNED
    elif job.summary:
        job.status = str(job.summary.get("status", FAILED))
        if job.code and job.status not in (FAILED, INTERRUPTED):
            job.status = FAILED
    elif asked == PRUNED:
        job.status = PRUNED
    else:
        job.status = INTERRUPTED if stopped == INTERRUPTED or asked else FAILED
    if stopped not in ("", INTERRUPTED, PRUNED):
        job.status = FAILED
    if job.status == FAILED:
        _explain(job, stopped)


def _explain(job: Job, stopped: str) -> None:
    last = tail(job.folder / LOG)
    said = str(job.summary.get("error") or "")
    why = f"The process ended with exit code {job.code} before it could say why."
    words = next((line.strip() for line in reversed(last) if line.strip()), "")
    why += f" The last line of its log: {words}" if words else ""
    job.error = stopped or said or why
    with suppress(OSError):
        job.traceback = (job.folder / TRACEBACK).read_text(encoding="utf-8")
    job.traceback = job.traceback or "\n".join(last)
    if not job.summary or stopped:
        job.summary = write_failure(job.folder, job.overrides, job.error, job.code, last)


def write_failure(
    folder: Path, overrides: Sequence[str], why: str, code: int | None, last: Sequence[str] = ()
) -> dict[str, Any]:
    """A ``summary.json`` for a run that could not write its own."""
    summary: dict[str, Any] = {
        "status": FAILED,
        "error": why,
        "exit_code": code,
        "stderr": list(last),
        "overrides": list(overrides),
        "objective": {},
        "metrics": {},
    }
    write_json(folder / SUMMARY, summary)
    return summary
