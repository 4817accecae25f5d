"""The report as text: for terminals, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mannlab.report.groups import Group, Section, heading
from mannlab.report.runs import is_number
from mannlab.report.statistics import CONFIDENCE, Estimate

ARROWS = {"min": " ↓", "max": " ↑"}
NOTE = f"± : {CONFIDENCE:.0%} confidence interval of the mean over runs (Student's t); one run has none"
NUMBERS = ("steps", "sequences", "wall_seconds", "parameters", "sequences_until_solved")
CSV_HEAD = ("task", "group")
CSV_REST = (
    "metric",
    "direction",
    "runs",
    "measured",
    "mean",
    "ci95_low",
    "ci95_high",
    "lowest",
    "highest",
    "sequences_until_solved",
    "parameters",
    "wall_seconds",
)


@dataclass(frozen=True)
class Cell:
    """What stands in a table: its text, what to sort it by, and whether it is the best of its column."""

    text: str
    order: float | str
    best: bool = False


def words(metric: str) -> str:
    """A metric for people: ``test_length_30/bit_errors`` is ``bit errors, test length 30``."""
    split, _, name = metric.rpartition("/")
    plain = name.replace("_", " ")
    return f"{plain}, {split.replace('_', ' ')}" if split else plain


def number(value: float | None, digits: int = 4) -> str:
    """A number for people, without an exponent where a few digits do; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """Seconds as the largest unit that leaves at least one."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def spread(found: Estimate | None) -> str:
    """A mean with its interval."""
    if found is None:
        return ""
    return number(found.mean) + (f" ± {number(found.half, 2)}" if found.half is not None else "")


def counts(group: Group) -> str:
    """``3``, or ``2 of 3 (1 failed)``."""
    done, tries = len(group.counted), len(group.tries)
    if done == tries:
        return f"{done}"
    others = ", ".join(f"{n} {word}" for word, n in group.others.items() if word != "repeated")
    return f"{done} of {tries} ({others})"


def columns(section: Section) -> list[str]:
    """The headings of a section's table."""
    shown = [words(metric) + ARROWS.get(section.direction(metric) or "", "") for metric in section.metrics]
    if section.split != "test" and section.measured:
        shown = [f"{title} (validation)" if "," not in title else title for title in shown]
    keys = [heading(key) for key in section.keys] or ["group"]
    return [*keys, "runs", *shown, *_further(section)]


def _further(section: Section) -> list[str]:
    found = ["solved"] if any(_solved(group) for group in section.groups) else []
    return [*found, "parameters", "time"]


def _solved(group: Group) -> list[float]:
    values = [run.summary.get("sequences_until_solved") for run in group.counted]
    return [float(value) for value in values if is_number(value)]


def rows(section: Section) -> list[list[Cell]]:
    """The cells of a section's table, a row a group."""
    best = {metric: section.best(section.full(metric)) for metric in section.metrics}
    found = []
    for group in section.groups:
        values = group.values or (group.label,)
        row = [Cell(value, _order(value)) for value in values]
        row.append(Cell(counts(group), len(group.counted)))
        for metric in section.metrics:
            value = group.estimate(section.full(metric))
            missing = value is not None and len(value.values) < len(group.counted)
            text = spread(value) + (f" ({len(value.values)} measured)" if missing and value else "")
            row.append(Cell(text, value.mean if value else math.inf, group in best[metric]))
        if "solved" in _further(section):
            solved = _solved(group)
            mean = sum(solved) / len(solved) if solved else math.inf
            text = f"{len(solved)} of {len(group.counted)}" + (f", at {mean:,.0f}" if solved else "")
            row.append(Cell(text if group.counted else "", mean))
        size, time = group.mean("parameters"), group.mean("wall_seconds")
        row.append(Cell(f"{size.mean:,.0f}" if size else "", size.mean if size else math.inf))
        row.append(Cell(duration(time.mean) if time else "", time.mean if time else math.inf))
        found.append(row)
    return found


def _order(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def troubles(section: Section) -> list[str]:
    """A line for each run that is not counted."""
    found = []
    for run in section.runs:
        if run.repeats is not None:
            found.append(
                f"repeated: {run.folder} (the same options and seed as {run.repeats}, or continued there: "
                "that one counts)"
            )
        elif not run.finished:
            why = run.problem.strip().partition("\n")[0]
            found.append(f"{run.status}: {run.folder}" + (f" ({why})" if why else ""))
    return found


# ---------------------------------------------------------------------- renderings


def show(console: Any, sections: Sequence[Section], most: int = 8) -> None:
    """Print the tables, and what is not counted in them."""
    from rich.table import Table
    from rich.text import Text

    for section in sections:
        console.print()
        console.print(Text(section.task or "runs that could not be read", style="bold"))
        if section.task:
            table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
            left = max(1, len(section.keys))
            for index, title in enumerate(columns(section)):
                table.add_column(Text(title), justify="left" if index < left else "right")
            for row in rows(section):
                table.add_row(*(Text(cell.text, style="green" if cell.best else "") for cell in row))
            console.print(table)
        lines = troubles(section)
        for line in lines[:most]:
            console.print(Text(line, style="dim"), soft_wrap=True)
        if len(lines) > most:
            console.print(Text(f"and {len(lines) - most} more that are not counted", style="dim"))
    if any(run.finished for section in sections for run in section.runs):
        console.print(Text(f"\n{NOTE}", style="dim"))


def markdown(sections: Sequence[Section]) -> str:
    """A table for each task."""
    parts = []
    for section in sections:
        parts.append(f"## {_cell(section.task or 'runs that could not be read')}")
        if section.task:
            titles = columns(section)
            left = max(1, len(section.keys))
            lines = [titles, ["---" if i < left else "---:" for i in range(len(titles))]]
            for row in rows(section):
                lines.append([f"**{_cell(cell.text)}**" if cell.best else _cell(cell.text) for cell in row])
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in [lines[0], *lines[1:]]))
        if section.runs and (lines_left := troubles(section)):
            parts.append("\n".join(f"- {_cell(line)}" for line in lines_left))
    return "\n\n".join([*parts, NOTE]) + "\n"


def _cell(text: str) -> str:
    """Text that Markdown leaves alone."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>|#~" else letter for letter in plain)


def _wanted(section: Section) -> list[str]:
    """What goes into files: the metrics that the user named, else all of the main split and its sizes."""
    if section.named:
        return [section.full(metric) for metric in section.metrics]
    first = [section.full(metric) for metric in section.metrics]
    rest = [name for name in section.measured if name.partition("/")[0].startswith(section.split)]
    return list(dict.fromkeys([*first, *rest]))


def comma_separated(sections: Sequence[Section]) -> str:
    """One line for each group and metric, so that any metric of any task has the same columns."""
    keys = list(dict.fromkeys(heading(key) for section in sections for key in section.keys))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*CSV_HEAD, *keys, *CSV_REST])
    for section in sections:
        for group in section.groups if section.task else []:
            known = dict(zip(map(heading, section.keys), group.values, strict=True))
            solved = _solved(group)
            size, time = group.mean("parameters"), group.mean("wall_seconds")
            last = [sum(solved) / len(solved) if solved else None, size and size.mean, time and time.mean]
            for metric in _wanted(section):
                value = group.estimate(metric)
                numbers: list[Any] = [None] * 5
                if value is not None:
                    numbers = [value.mean, value.low, value.high, min(value.values), max(value.values)]
                done = [len(group.counted), len(value.values) if value else 0]
                line = [section.task, group.label, *(known.get(key) for key in keys), metric]
                table.writerow([*line, section.direction(metric), *done, *numbers, *last])
    return out.getvalue()


def as_json(sections: Sequence[Section]) -> str:
    """Everything: groups with their statistics, and each run with what it measured and its command."""
    found = [_json_section(section) for section in sections]
    return json.dumps({"confidence": CONFIDENCE, "tasks": found}, indent=2, ensure_ascii=False) + "\n"


def _json_section(section: Section) -> dict[str, Any]:
    groups = []
    for group in section.groups:
        metrics = {}
        for metric in _wanted(section):
            value = group.estimate(metric)
            if value is not None:
                interval = None if value.half is None else [value.low, value.high]
                metrics[metric] = {"mean": value.mean, "ci95": interval, "values": list(value.values)}
        runs = [
            {
                "folder": str(run.folder),
                "status": run.status,
                "counted": run.finished,
                "seed": run.seed if isinstance(run.seed, (int, str)) else None,
                "command": run.command,
                "problem": run.problem or None,
                "metrics": run.metrics,
                **{key: value for key in NUMBERS if is_number(value := run.summary.get(key))},
            }
            for run in group.runs
        ]
        values = dict(zip(map(heading, section.keys), group.values, strict=True))
        groups.append({"label": group.label, "values": values, "metrics": metrics, "runs": runs})
    return {
        "task": section.task or None,
        "by": [heading(key) for key in section.keys],
        "objective": {"metric": section.objective, "mode": section.mode},
        "groups": groups,
    }
