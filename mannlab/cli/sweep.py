"""Sweeps: every job in a process of its own, and one table of them all.

Jobs that share a process leak distributed state and seeds from one to the next; Lightning then trains
on the wrong share of the data without an error.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mannlab.cli import errors

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
LEAKING_PREFIXES = ("PL_", "TORCHELASTIC_")
TAIL = 30  # lines of a dead job's standard error to keep


@dataclass
class Job:
    """One job of a sweep, before and after."""

    folder: Path
    overrides: list[str]
    status: str = "running"
    code: int | None = None
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The main metric of a job that went well."""
        found = (self.summary.get("objective") or {}).get("value")
        return None if self.status == "failed" or found is None else float(found)

    def record(self) -> dict[str, Any]:
        """The job in ``sweep.json``."""
        keys = (
            "steps",
            "sequences_until_solved",
            "wall_seconds",
            "parameters",
            "objective",
            "metrics",
            "error",
        )
        return {
            "folder": self.folder.name,
            "overrides": self.overrides,
            "status": self.status,
            "exit_code": self.code,
            "seconds": round(self.seconds, 1),
            **{key: self.summary.get(key) for key in keys},
        }


@dataclass
class Sweep:
    """The jobs of a sweep so far."""

    folder: Path
    jobs: list[Job] = field(default_factory=list)
    interrupted: bool = False

    @property
    def code(self) -> int:
        """The exit code: 0 only if every job went well."""
        if self.interrupted:
            return errors.INTERRUPTED
        return 1 if any(job.code for job in self.jobs) else 0

    def run(self, job: Job, command: Sequence[str]) -> Job:
        """Start a job, wait for it, and note how it ended."""
        self.jobs.append(job)
        began = time.monotonic()
        with stop_requests(self) as forward:
            process = subprocess.Popen(command, env=clean(os.environ), stderr=subprocess.PIPE)
            forward.append(process)
            tail = pass_on(process)
        job.code, job.seconds = process.returncode, time.monotonic() - began
        settle(job, tail)
        self.save()
        return job

    def save(self) -> None:
        """Write ``sweep.json`` and ``sweep.csv``."""
        records = [job.record() for job in self.jobs]
        text = json.dumps({"interrupted": self.interrupted, "jobs": records}, indent=2, ensure_ascii=False)
        (self.folder / "sweep.json").write_text(text + "\n", encoding="utf-8")
        metrics = sorted({name for record in records for name in record["metrics"] or {}})
        keys = swept_keys(self.jobs)
        with (self.folder / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["folder", *keys, "status", "steps", "seconds", *metrics])
            for job, record in zip(self.jobs, records, strict=True):
                values = settings(job.overrides)
                found = record["metrics"] or {}
                first = [record["folder"], *(values.get(key, "") for key in keys)]
                rest = [record["status"], record["steps"], record["seconds"]]
                table.writerow([*first, *rest, *(found.get(name) for name in metrics)])

    def report(self) -> None:
        """Print the table of all jobs."""
        if not self.jobs:
            return
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False, soft_wrap=True)
        console.print()
        console.print(table(self.jobs))
        failed = sum(1 for job in self.jobs if job.code)
        line = f"\n{len(self.jobs)} jobs" + (f", {failed} of them did not finish well" if failed else "")
        console.print(line + (" (stopped before the rest)" if self.interrupted else ""))
        console.print(Text(f"sweep       {self.folder}\nwatch       tensorboard --logdir {self.folder}"))


_current: list[Sweep] = []


def begin(folder: Path) -> Sweep:
    """A new sweep, to be reported by the program when Hydra is done."""
    folder.mkdir(parents=True, exist_ok=True)
    _current[:] = [Sweep(folder.resolve())]
    return _current[0]


def take() -> Sweep | None:
    """The sweep that ran, if one did."""
    return _current.pop() if _current else None


# ---------------------------------------------------------------------- one job


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a job: what the user had, without traces of other runs."""
    kept = {
        key: value
        for key, value in environment.items()
        if key not in LEAKS and not key.startswith(LEAKING_PREFIXES)
    }
    errors.restore(kept)
    # The job must find the same mannlab, from whatever folder it is started.
    home = str(Path(__file__).resolve().parents[2])
    paths = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path]
    if home not in paths:
        kept["PYTHONPATH"] = os.pathsep.join([*paths, home])
    return kept


def command(overrides: Sequence[str], folder: Path, flags: Sequence[str] = ()) -> list[str]:
    """The command of a job."""
    # Hydra's grammar: only quotes, and backslashes that stand before one, are escaped.
    quoted = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), str(folder))
    return [sys.executable, "-m", "mannlab", *flags, *overrides, f"hydra.run.dir='{quoted}'"]


def pass_on(process: subprocess.Popen[bytes]) -> list[str]:
    """Show a job's standard error, wait for its end, and return the last lines."""
    tail: deque[str] = deque(maxlen=TAIL)

    def read() -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for raw in stream:
                text = raw.decode(errors="replace")
                sys.stderr.write(text)
                sys.stderr.flush()
                tail.append(text.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process.wait()
    # Its own children may keep the pipe open.
    reader.join(timeout=5)
    return list(tail)


@contextmanager
def stop_requests(sweep: Sweep) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Ctrl-C and SIGTERM end the sweep after the present job, which is told as well.

    A terminal sends Ctrl-C to the job by itself; SIGTERM is handed on to the processes in the list.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: Any) -> None:
        sweep.interrupted = True
        if number == signal.SIGTERM:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield processes
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield processes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settle(job: Job, tail: Sequence[str]) -> None:
    """Read the summary of a job that ended, or write one for a job that died too early to do so."""
    path = job.folder / "summary.json"
    try:
        job.summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        why = f"The process ended with exit code {job.code} before it could say why."
        job.folder.mkdir(parents=True, exist_ok=True)
        job.summary = write_failure(job.folder, job.overrides, why, job.code, tail)
    job.status = str(job.summary.get("status", "failed"))
    if job.code and job.status not in ("failed", "interrupted"):
        job.status = "failed"


def write_failure(
    folder: Path, overrides: Sequence[str], why: str, code: int | None, tail: Sequence[str] = ()
) -> dict[str, Any]:
    """A ``summary.json`` for a run that could not write its own."""
    summary: dict[str, Any] = {
        "status": "failed",
        "error": why,
        "exit_code": code,
        "stderr": list(tail),
        "overrides": list(overrides),
        "objective": {},
        "metrics": {},
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


# ---------------------------------------------------------------------- the table


def settings(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides as keys and values."""
    parts = (word.partition("=") for word in overrides)
    return {key.lstrip("+"): value for key, _, value in parts}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """The keys that any job sets, in the order of the command line."""
    return list(dict.fromkeys(key for job in jobs for key in settings(job.overrides)))


def table(jobs: Sequence[Job]) -> Any:
    """What each job was given, and how it ended."""
    from rich.table import Table

    found = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    keys = swept_keys(jobs)
    for key in keys:
        found.add_column(key)
    found.add_column("status")
    for name in ("steps", "solved at"):
        found.add_column(name, justify="right")
    metrics = {str((job.summary.get("objective") or {}).get("metric")) for job in jobs} - {"None"}
    found.add_column(
        metrics.copy().pop().replace("_", " ") if len(metrics) == 1 else "result", justify="right"
    )
    colours = {"failed": "red", "interrupted": "yellow", "solved": "green"}
    for job in jobs:
        values = settings(job.overrides)
        status = f"[{colours[job.status]}]{job.status}[/]" if job.status in colours else job.status
        name = str((job.summary.get("objective") or {}).get("metric", "")) if len(metrics) > 1 else ""
        result = "" if job.value is None else f"{job.value:.4g} {name.replace('_', ' ')}".rstrip()
        numbers = [job.summary.get("steps"), job.summary.get("sequences_until_solved")]
        cells = ["" if number is None else f"{number:,}" for number in numbers]
        found.add_row(*(values.get(key, "") for key in keys), status, *cells, result)
    return found
