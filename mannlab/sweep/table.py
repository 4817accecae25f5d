"""What came of a sweep: a table, the best job first, and what to type next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mannlab.sweep import jobs
from mannlab.sweep.live import COLOURS, counts
from mannlab.sweep.record import DONE, FAILED, INTERRUPTED, Job, Sweep, settings, swept_keys

MOST = 40  # rows; more are in sweep.csv


def ranked(found: Sequence[Job]) -> list[Job]:
    """By main metric, the best first; then jobs without a value, failed ones last."""

    def key(job: Job) -> tuple[Any, ...]:
        value = job.value
        if value is None or math.isnan(value):
            return (1, job.status == FAILED, 0.0, job.number)
        worse = -value if job.objective.get("mode") == "max" else value
        # A job that was stopped has not been measured at the end.
        return (0, job.status == jobs.PRUNED, worse, job.number)

    metrics = {str(job.objective.get("metric")) for job in found if job.objective}
    if len(metrics) > 1:
        return sorted(found, key=lambda job: (str(job.objective.get("metric", "~")), key(job)))
    return sorted(found, key=key)


def table(found: Sequence[Job], most: int = MOST) -> Any:
    """What each job was given, and how it ended."""
    from rich.table import Table

    drawn = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    keys = swept_keys(found)
    for key in keys:
        drawn.add_column(key, overflow="fold")
    drawn.add_column("status")
    for name in ("steps", "solved at"):
        drawn.add_column(name, justify="right")
    metrics = {str(job.objective.get("metric")) for job in found} - {"None"}
    drawn.add_column(
        metrics.copy().pop().replace("_", " ") if len(metrics) == 1 else "result", justify="right"
    )
    for job in ranked(found)[:most]:
        values = settings(job.overrides)
        status = f"[{COLOURS[job.status]}]{job.status}[/]" if job.status in COLOURS else job.status
        name = str(job.objective.get("metric", "")) if len(metrics) > 1 else ""
        result = "" if job.value is None else f"{job.value:.4g} {name.replace('_', ' ')}".rstrip()
        numbers = [job.summary.get("steps"), job.summary.get("sequences_until_solved")]
        cells = ["" if number is None else f"{number:,}" for number in numbers]
        drawn.add_row(*(_short(values.get(key, "")) for key in keys), status, *cells, result)
    return drawn


def _short(value: str) -> str:
    """A number with six digits; other values as they are."""
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.6g}"
    except ValueError:
        return value


def report(sweep: Sweep) -> None:
    """Print the table of all jobs, and what to type next."""
    if not sweep.jobs:
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(table(sweep.jobs))
    if len(sweep.jobs) > MOST:
        console.print(f"… and {len(sweep.jobs) - MOST} more in {sweep.folder / 'sweep.csv'}")
    bad = sum(job.status == FAILED for job in sweep.jobs)
    line = f"\n{len(sweep.jobs)} jobs" + (f", {bad} of them did not finish well" if bad else "")
    console.print(line + (f" (stopped before the rest: {counts(sweep, None)})" if sweep.interrupted else ""))
    for words, what in next_steps(sweep):
        console.print(Text(f"{words:<12}{what}"))


def shown(path: Path) -> str:
    """A path as it is typed in the present folder."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def next_steps(sweep: Sweep) -> list[tuple[str, str]]:
    """What to look at, and what to type."""
    found = [("sweep", shown(sweep.folder))]
    first = next((job for job in ranked(sweep.jobs) if job.status in DONE and job.value is not None), None)
    if first is not None and len(sweep.jobs) > 1:
        found.append(("best", f"python -m mannlab eval {shown(first.folder)}"))
    if first is not None:
        found.append(("compare", f"python -m mannlab report {shown(sweep.folder)}"))
    failed = next((job for job in sweep.jobs if job.status == FAILED), None)
    if failed is not None:
        found.append(("why failed", f"less {shown(failed.folder / jobs.LOG)}"))
    if sweep.unfinished() or sweep.status == INTERRUPTED:
        found.append(("the rest", f"python -m mannlab resume sweep={shown(sweep.folder)}"))
    found.append(("watch", f"tensorboard --logdir {shown(sweep.folder)}"))
    return found
