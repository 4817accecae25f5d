"""Runs by task, and by what differs between them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mannlab.errors import ConfigError, choices
from mannlab.report.runs import BOOKKEEPING, Run, is_number, mapping
from mannlab.report.statistics import Estimate, estimate

ABSENT = "–"
PART = re.compile(r"(.+)\.(name|_target_)")
LEVEL = re.compile(r"test_(\w+)_(\d+)")
STREAMS = ("test", "val")
HIGHER = re.compile(r"accuracy|bleu|recall|precision")
LOWER = re.compile(r"loss|error|cost|perplexity|above_optimum|bits_per|nats_per")


@dataclass
class Group:
    """Runs that agree in the keys of their section.

    Attributes:
        values: of each key, as text.
        label: the values as one line.
        runs: all of them, whatever became of them.
    """

    values: tuple[str, ...]
    label: str
    runs: list[Run] = field(default_factory=list)

    @property
    def counted(self) -> list[Run]:
        """The runs that are averaged."""
        return [run for run in self.runs if run.finished]

    @property
    def tries(self) -> list[Run]:
        """The runs without repetitions."""
        return [run for run in self.runs if run.repeats is None]

    def estimate(self, metric: str) -> Estimate | None:
        """Of ``split/metric`` over the runs that finished and measured it."""
        return estimate([run.metrics[metric] for run in self.counted if metric in run.metrics])

    def mean(self, key: str) -> Estimate | None:
        """Of a number in the summary."""
        values = [run.summary.get(key) for run in self.counted]
        return estimate([float(value) for value in values if is_number(value)])

    @property
    def others(self) -> dict[str, int]:
        """How many runs are not counted, by status."""
        found: dict[str, int] = {}
        for run in self.runs:
            if not run.finished:
                word = "repeated" if run.repeats else run.status
                found[word] = found.get(word, 0) + 1
        return found


@dataclass
class Section:
    """The runs of one task.

    Attributes:
        task: its name; empty for runs that could not be read.
        keys: what groups differ in.
        groups: in the order of their values.
        metrics: the main ones, without their split; those to show first.
        mode: of the objective: ``min`` or ``max``; None if nobody knows.
        objective: the metric that ``mode`` is about.
        named: ``metrics`` was the user's choice.
    """

    task: str
    keys: list[str]
    groups: list[Group]
    metrics: list[str]
    objective: str | None = None
    mode: str | None = None
    named: bool = False

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    @property
    def measured(self) -> list[str]:
        """Every ``split/metric`` of a run that finished."""
        return list(dict.fromkeys(name for run in self.runs if run.finished for name in run.metrics))

    @property
    def split(self) -> str:
        """Whose metrics to compare: the test set if any run that finished was tested, else validation."""
        found = {name.partition("/")[0] for name in self.measured}
        return next((stream for stream in STREAMS if stream in found), STREAMS[0])

    def full(self, metric: str) -> str:
        """``split/metric`` of a metric."""
        return metric if "/" in metric else f"{self.split}/{metric}"

    def direction(self, metric: str) -> str | None:
        """``min``, ``max`` or None: the objective's, and what the name of another metric says by itself."""
        name = metric.rpartition("/")[2]
        if name == self.objective:
            return self.mode
        return "max" if HIGHER.search(name) else "min" if LOWER.search(name) else None

    def best(self, metric: str) -> list[Group]:
        """The group with the best mean, and those that are as good as far as their intervals tell.

        Empty if the metric has no direction, or if that would be all groups.
        """
        found = [(group, value) for group in self.groups if (value := group.estimate(metric))]
        mode = self.direction(metric)
        if mode is None or not found:
            return []
        top = (max if mode == "max" else min)((value for _, value in found), key=lambda value: value.mean)
        alike = [group for group, value in found if value.mean == top.mean or value.overlaps(top)]
        return alike if len(alike) < len(found) else []

    def sizes(self, metric: str) -> dict[str, list[tuple[int, str]]]:
        """Kind of size to (size, ``split/metric``), of test sets of two or more sizes."""
        found: dict[str, dict[int, str]] = {}
        named = self._levels()
        for name in self.measured:
            stream, _, last = name.partition("/")
            kind, level = _level(stream, named)
            if last == metric.rpartition("/")[2] and level is not None:
                found.setdefault(kind, {})[level] = name
        return {kind: sorted(levels.items()) for kind, levels in found.items() if len(levels) > 1}

    def _levels(self) -> dict[str, Any] | None:
        """The size of each test set, as any run names it; None if none does."""
        named = [mapping(run.summary.get("generalisation")).get("levels") for run in self.runs]
        levels = [one for one in named if isinstance(one, dict)]
        return {stream: level for one in levels for stream, level in one.items()} if levels else None

    def trained(self, kind: str) -> int | None:
        """The largest size of training, if all runs that finished agree on it."""
        found = set()
        for run in self.runs:
            if run.finished:
                size = mapping(run.summary.get("generalisation")).get("trained")
                size = size.get(kind) if isinstance(size, dict) else size
                found.add(int(size) if is_number(size) else None)
        return found.pop() if len(found) == 1 else None


def _level(stream: str, named: dict[str, Any] | None) -> tuple[str, int | None]:
    if named is not None:
        level = named.get(stream)
        kind = stream.removeprefix("test_").removesuffix(str(level)).strip("_").replace("_", " ")
        return kind or "size", level if isinstance(level, int) else None
    match = LEVEL.fullmatch(stream)
    return (match[1].replace("_", " "), int(match[2])) if match else ("", None)


def sections(runs: Sequence[Run], by: Sequence[str] = (), metrics: Sequence[str] = ()) -> list[Section]:
    """One section a task, each with its groups.

    Args:
        runs: from ``collect``.
        by: configuration keys; by default those that tell the runs apart. Options of the task are always
            among them: runs of different tasks are not averaged.
        metrics: which to show, with or without their split; by default the task's own.

    Raises:
        ConfigError: no run has such a key or such a metric.
    """
    tasks: dict[str, list[Run]] = {}
    for run in runs:
        tasks.setdefault(run.task if run.options else "", []).append(run)
    _check_keys(runs, by)
    found = [_section(task, tasks[task], by) for task in sorted(tasks, key=lambda task: (not task, task))]
    if metrics:
        _choose(found, metrics)
    return found


def _section(task: str, runs: list[Run], by: Sequence[str]) -> Section:
    if by:
        own = [key for key in differing(runs) if key.startswith("task.")]
        here = [known for key in by if (known := resolve(key, runs)) is not None]
        keys = list(dict.fromkeys([*here, *own]))
    else:
        keys = differing(runs)
    found: dict[tuple[str, ...], Group] = {}
    for run in runs:
        values = tuple(value(run, key) for key in keys)
        found.setdefault(values, Group(values, label(keys, values) or task or "?")).runs.append(run)
    groups = [found[values] for values in sorted(found, key=lambda values: [_natural(v) for v in values])]
    for group in groups:
        group.runs.sort(key=lambda run: (_natural(show(run.seed)), str(run.folder)))
    objective = next((run.objective for run in runs if run.objective.get("metric")), {})
    shown = [objective.get("shown"), objective.get("metric")]
    metrics = [str(name) for name in dict.fromkeys(shown) if name]
    if not objective.get("shown"):
        # Runs that have no summary, or an older one, name them in their logs.
        watched = next((run.scalars.watched for run in runs if run.scalars.watched), [])
        metrics = list(dict.fromkeys([*watched, *metrics]))
    mode = objective.get("mode")
    return Section(
        task,
        keys,
        groups,
        metrics,
        str(objective["metric"]) if objective else None,
        str(mode) if mode in ("min", "max") else None,
    )


def _choose(found: Sequence[Section], metrics: Sequence[str]) -> None:
    known: set[str] = set()
    hit: set[str] = set()
    for section in found:
        names = set(section.measured) | {name.rpartition("/")[2] for name in section.measured}
        names |= {tag.partition("/")[2] for run in section.runs for tag in run.scalars.curves}
        known |= names
        here = [name for name in metrics if name in names]
        hit |= set(here)
        section.metrics, section.named = here or section.metrics, bool(here)
    for name in metrics:
        if name not in hit:
            plain = sorted(known if "/" in name else {name for name in known if "/" not in name})
            raise ConfigError(f"metric: no run has measured '{name}'.", choices(name, plain, "metrics"))


# ---------------------------------------------------------------------- keys


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys that tell runs apart, without those that follow from others; never the seed.

    Names of parts come first, then what was typed, then the rest. Options of the task always count: what was
    asked of runs must be seen, whatever else tells them apart.
    """
    runs = [run for run in runs if run.options]
    typed = {word.lstrip("+").partition("=")[0] for run in runs for word in run.overrides}
    keys = dict.fromkeys(key for run in runs for key in run.options if not BOOKKEEPING.fullmatch(key))
    parts = {part: index for index, part in enumerate(("task", "controller", "memory"))}

    def rank(key: str) -> tuple[int, int]:
        match = PART.fullmatch(key)
        if match and "." not in match[1]:
            return 0, parts.get(match[1], len(parts))
        return (1 if any(key == word or key.startswith(f"{word}.") for word in typed) else 2), 0

    cells = [list(runs)]
    found = []
    for key in sorted(keys, key=rank):
        asked = _split(runs, "task.name") if key.startswith("task.") else []
        if any(
            len({show(run.options[key]) for run in cell if key in run.options}) > 1
            for cell in [*cells, *asked]
        ):
            found.append(key)
            cells = [part for cell in cells for part in _split(cell, key)]
    return found


def _split(cell: Sequence[Run], key: str) -> list[list[Run]]:
    parts: dict[str, list[Run]] = {}
    for run in cell:
        parts.setdefault(value(run, key), []).append(run)
    return list(parts.values())


def resolve(key: str, runs: Sequence[Run]) -> str | None:
    """The configuration key that is meant: ``memory`` is ``memory.name``, ``slots`` is ``memory.slots``."""
    known = {name for run in runs for name in run.options}
    for name in (key, f"{key}.name", f"{key}._target_"):
        if name in known:
            return name
    ends = sorted(name for name in known if name.endswith(f".{key}"))
    return ends[0] if len(ends) == 1 else None


def _check_keys(runs: Sequence[Run], by: Sequence[str]) -> None:
    for key in by:
        if resolve(key, runs) is None:
            known = sorted({name for run in runs for name in run.options})
            several = [name for name in known if name.endswith(f".{key}")]
            if several:
                raise ConfigError(f"by: '{key}' is in several parts.", f"Say which: {', '.join(several)}")
            short = [PART.sub(r"\1", name) for name in known]
            near = choices(key, short).partition(" known:")[0] if short else ""
            hint = near if near.startswith("Did you mean") else ""
            apart = ", ".join(PART.sub(r"\1", name) for name in differing(runs))
            more = f"The runs differ in: {apart or 'nothing'}. Any key of config.yaml can be given."
            raise ConfigError(f"by: no run has a key '{key}'.", f"{hint} {more}".strip())


def show(value: Any) -> str:
    """A value of a configuration in few characters."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, default=str, ensure_ascii=False)


def value(run: Run, key: str) -> str:
    """An option of a run; of a class that is named by its path, the name alone."""
    found = run.options.get(key, ABSENT)
    if key.endswith("._target_"):
        return "none" if found is None else str(found).rpartition(".")[2]
    return show(found)


def heading(key: str) -> str:
    """A key for people."""
    return PART.sub(r"\1", key)


def label(keys: Sequence[str], values: Sequence[str]) -> str:
    """One line for a group: names alone, other options with their key."""
    shown = []
    for key, word in zip(keys, values, strict=True):
        if word == ABSENT:
            continue
        last = key.rpartition(".")[2]
        alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
        if last == "name":
            shown.append(word)
        else:
            shown.append(f"{heading(key) if PART.fullmatch(key) or not alone else last}={word}")
    return ", ".join(shown)


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers by their size, then words."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
