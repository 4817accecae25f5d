"""What is known of a sweep and its jobs: ``sweep.json`` and ``sweep.csv`` in its folder.

``sweep.json`` is written whole or not at all, when the sweep begins and whenever a job starts or ends::

    {"format": 1, "status": "running" | "done" | "interrupted", "began", "host", "pid", "command", "options",
     "common", "composition", "counts": {status: jobs},
     "jobs": [{"number", "folder", "overrides", "status", "attempts", "seconds", "where", "exit_code",
               "metric", "mode", "value", "error", "traceback", "steps", "sequences_until_solved",
               "wall_seconds", "parameters", "objective", "metrics", "processes", "gpus", "threads",
               "trial"}]}

A job's status is waiting, running, completed, solved, pruned, interrupted or failed.
"""

from __future__ import annotations

import csv
import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mannlab.cli import errors
from mannlab.errors import ConfigError
from mannlab.files import replacing, write_json
from mannlab.sweep.options import Options

FILE = "sweep.json"
LOCK = ".lock"
WAITING, RUNNING, FAILED, INTERRUPTED = "waiting", "running", "failed", "interrupted"
DONE = ("completed", "solved", "pruned")
OF_SUMMARY = ("steps", "sequences_until_solved", "wall_seconds", "parameters", "objective", "metrics")


@dataclass
class Job:
    """One job of a sweep: what it was given, and how it is.

    Attributes:
        overrides: what differs between the jobs.
        processes: how many it starts.
        gpus: how many it uses, if there are any.
        threads: of each process, if its configuration says.
        where: the device or the job number of a cluster.
        trial: its number in a study of Optuna's.
    """

    number: int
    folder: Path
    overrides: list[str]
    status: str = WAITING
    attempts: int = 0
    seconds: float = 0.0
    where: str = ""
    code: int | None = None
    error: str | None = None
    traceback: str | None = None
    processes: int = 1
    gpus: int = 0
    threads: int | None = None
    trial: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def objective(self) -> dict[str, Any]:
        """``{"metric", "mode", "value"}`` of the summary, empty without one."""
        return self.summary.get("objective") or {}

    @property
    def value(self) -> float | None:
        """The main metric of a job that went well."""
        found = self.objective.get("value")
        return None if self.status not in DONE or found is None else float(found)

    def record(self) -> dict[str, Any]:
        """The job in ``sweep.json``."""
        return {
            "number": self.number,
            "folder": self.folder.name,
            "overrides": self.overrides,
            "status": self.status,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 1),
            "where": self.where,
            "exit_code": self.code,
            "metric": self.objective.get("metric"),
            "mode": self.objective.get("mode"),
            "value": self.value,
            "error": self.error,
            "traceback": self.traceback,
            **{key: self.summary.get(key) for key in OF_SUMMARY},
            "processes": self.processes,
            "gpus": self.gpus,
            "threads": self.threads,
            "trial": self.trial,
        }

    @classmethod
    def restored(cls, record: dict[str, Any], sweep: Path) -> Job:
        """The job that a record is of; a summary that is there is read again."""
        names = ("number", "overrides", "status", "attempts", "seconds", "where", "error", "traceback")
        same = {name: record[name] for name in (*names, "processes", "gpus", "threads", "trial")}
        job = cls(folder=sweep / record["folder"], code=record["exit_code"], **same)
        job.summary = {key: record[key] for key in OF_SUMMARY if record.get(key) is not None}
        return job


@dataclass
class Sweep:
    """The jobs of a sweep so far.

    Attributes:
        common: overrides that all jobs share.
        composition: how the configurations of further jobs are made (a search that goes on).
        stopped_by: why it ended before its time.
    """

    folder: Path
    jobs: list[Job] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    command: list[str] = field(default_factory=list)
    common: list[str] = field(default_factory=list)
    composition: dict[str, Any] = field(default_factory=dict)
    status: str = RUNNING
    began: float = 0.0
    stopped_by: str = ""

    @property
    def by_user(self) -> bool:
        """Whether the user stopped it."""
        return self.interrupted and self.stopped_by == INTERRUPTED

    @property
    def interrupted(self) -> bool:
        """Whether the user, or a failed job with ``on_error=stop``, ended it before its time."""
        return self.status == INTERRUPTED

    @property
    def code(self) -> int:
        """The exit code: 0 only if every job went well."""
        if self.interrupted and not any(job.status == FAILED for job in self.jobs):
            return errors.INTERRUPTED
        return 1 if any(job.status not in DONE for job in self.jobs) else 0

    def unfinished(self, failed: bool = True) -> list[Job]:
        """Jobs without a result; those that failed among them or not."""
        return [job for job in self.jobs if job.status not in DONE and (failed or job.status != FAILED)]

    def save(self) -> None:
        """Write ``sweep.json`` and ``sweep.csv``."""
        records = [job.record() for job in self.jobs]
        content = {
            "format": 1,
            "status": self.status,
            "interrupted": self.interrupted,
            "began": self.began,
            "host": platform.node(),
            "pid": os.getpid(),
            "command": self.command,
            "options": self.options.plain(),
            "common": self.common,
            "composition": self.composition,
            "counts": dict(Counter(job.status for job in self.jobs)),
            "jobs": records,
        }
        write_json(self.folder / FILE, content)
        with (
            replacing(self.folder / "sweep.csv") as path,
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            self._write_csv(file, records)

    def _write_csv(self, file: IO[str], records: list[dict[str, Any]]) -> None:
        metrics = sorted({name for record in records for name in record["metrics"] or {}})
        keys = swept_keys(self.jobs)
        table = csv.writer(file)
        table.writerow(["folder", *keys, "status", "steps", "seconds", *metrics])
        for job, record in zip(self.jobs, records, strict=True):
            values, found = settings(job.overrides), record["metrics"] or {}
            first = [record["folder"], *(values.get(key, "") for key in keys)]
            rest = [record["status"], record["steps"], record["seconds"]]
            table.writerow([*first, *rest, *(found.get(name) for name in metrics)])

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """The sweep of a folder.

        Raises:
            ConfigError: there is none, or its file cannot be read.
        """
        path = folder / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            jobs = [Job.restored(record, folder.resolve()) for record in found["jobs"]]
            same = {key: found[key] for key in ("command", "common", "composition", "status", "began")}
            return cls(folder.resolve(), jobs, Options.of(found["options"]), **same)
        except FileNotFoundError:
            hint = "Give the folder of a sweep, such as sweep=outputs/sweeps/<time>."
            raise ConfigError(f"There is no {FILE} in {folder}.", hint) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} cannot be read: {error!r}", "It was damaged or changed.") from error


class Lock:
    """At most one process works on a folder; the system frees the lock when its holder dies, however.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: IO[str] | None = None

    def take(self, wait: bool = False) -> bool:
        """Take it; returns whether it could be had. ``wait``: until the holder is gone."""
        file = self.path.open("a", encoding="utf-8")
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return False
        except (OSError, ImportError):
            # A system without locks: better no guard than no sweep.
            pass
        self._file = file
        return True

    def free(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def held(self) -> bool:
        """Whether some other process has it."""
        if self._file is not None or not self.path.exists():
            return False
        free = self.take()
        self.free()
        return not free


# ---------------------------------------------------------------------- overrides


def settings(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides as keys and values."""
    parts = (word.partition("=") for word in overrides)
    return {key.lstrip("+"): value for key, _, value in parts}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """The keys that any job sets, in the order of the command line."""
    return list(dict.fromkeys(key for job in jobs for key in settings(job.overrides)))
