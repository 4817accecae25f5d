"""Runs as they lie in folders: finished, running, failed or broken."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from mannlab.errors import ConfigError
from mannlab.report import events
from mannlab.trees import flat

SUMMARY, CONFIG = "summary.json", "config.yaml"
PARTS = ("controller", "memory", "task")
FINISHED = ("completed", "solved")
ALIVE = 900  # seconds since a run without a summary last wrote something, for it to count as running
SKIPPED = {"checkpoints", "pictures", "texts", "node_modules", "__pycache__"}
PICTURES = "pictures"
# What hangs on it says nothing of a run's result.
BOOKKEEPING = re.compile(
    r"seed|outputs|overrides|ckpt_path|plugins|workers|threads|test|logger(\..*)?|eval_batch_size"
    r"|callbacks\.(progress|pictures|hyper_parameters)\..*|trainer\.(log_every_n_steps|enable_.*)"
)


@dataclass
class Run:
    """A run's folder and what could be read there.

    Attributes:
        folder: where it lies.
        status: completed, solved, interrupted or failed, as its summary says; ``running``, or ``unfinished``
            if it has none and has not written for a while; ``broken`` if nothing can be read.
        summary: ``summary.json``, or nothing.
        config: its configuration, or nothing.
        problem: what went wrong in the run, or with reading it.
        repeats: the run of the same options and seed that is counted instead.
    """

    folder: Path
    status: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    repeats: Path | None = None

    @cached_property
    def options(self) -> dict[str, Any]:
        """The configuration by dotted key."""
        return flat(self.config)

    @property
    def task(self) -> str:
        """The name of the task, its data source included where the summary says it; empty if unknown."""
        name = self.summary.get("task_label") or self.options.get("task.name") or self.summary.get("task")
        given = [word.removeprefix("task=") for word in self.overrides if word.startswith("task=")]
        return str(name or (given[0] if given else ""))

    @property
    def seed(self) -> Any:
        return self.config.get("seed", self.summary.get("seed"))

    @property
    def finished(self) -> bool:
        """Whether it went well and was not told to stop; only such runs are averaged."""
        return self.status in FINISHED and self.repeats is None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """What was measured, by ``split/metric``.

        Without a test, the main metric in validation is that of the best checkpoint, not of the last: by it a
        sweep compares its jobs.
        """
        found = mapping(self.summary.get("metrics"))
        measured = {str(key): float(value) for key, value in found.items() if is_number(value)}
        validated, best = f"val/{self.objective.get('metric')}", self.objective.get("value")
        tested = any(name.startswith("test") for name in measured)
        if validated in measured and not tested and is_number(best):
            measured[validated] = float(best)
        return measured

    @property
    def objective(self) -> Mapping[str, Any]:
        return mapping(self.summary.get("objective"))

    @property
    def overrides(self) -> list[str]:
        found = self.summary.get("overrides")
        if not isinstance(found, list):
            found = _yaml(self.folder / ".hydra" / "overrides.yaml")
        return [str(word) for word in found] if isinstance(found, list) else []

    @property
    def command(self) -> str | None:
        """What was typed, or None if nobody wrote it down."""
        known = isinstance(self.summary.get("overrides"), list) or self.overrides
        return shlex.join(["python", "-m", "mannlab", *self.overrides]) if known else None

    @cached_property
    def scalars(self) -> events.Scalars:
        """What was logged, read at the first use."""
        return events.read(self.folder)

    @property
    def sequences_a_step(self) -> float | None:
        """How many sequences an optimizer step has seen."""
        steps, sequences = self.summary.get("steps"), self.summary.get("sequences")
        if is_number(steps) and is_number(sequences) and steps > 0:
            return float(sequences) / float(steps)
        batch = self.config.get("batch_size")
        return float(batch) if is_number(batch) else None

    def pictures(self) -> list[Path]:
        return sorted((self.folder / PICTURES).glob("*.png"))

    @property
    def ended(self) -> float:
        """When it was over, seconds since the epoch: what is looked at later changes nothing."""
        try:
            return (self.folder / SUMMARY).stat().st_mtime
        except OSError:
            return self.changed

    @property
    def changed(self) -> float:
        """When something in the folder was last written, seconds since the epoch."""
        try:
            return max(path.stat().st_mtime for path in [self.folder, *self.folder.iterdir()])
        except OSError:
            return 0.0


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """It, if it is a mapping; else an empty one."""
    return value if isinstance(value, Mapping) else {}


def collect(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in and below some folders, each once, in the order of their paths.

    Raises:
        ConfigError: a folder is not there, or none holds a run.
    """
    found: dict[Path, Run] = {}
    for given in folders:
        top = Path(given).expanduser()
        if top.name in (SUMMARY, CONFIG) and top.is_file():
            top = top.parent
        if not top.is_dir():
            raise ConfigError(f"'{given}' is no folder.", "Name run folders, or folders that hold some.")
        for folder in below(top):
            if folder.resolve() not in found and (run := read(folder)) is not None:
                found[folder.resolve()] = run
    if not found:
        where = ", ".join(map(str, folders))
        raise ConfigError(f"There are no runs in {where}.", "A run leaves config.yaml and summary.json.")
    _name_tasks(list(found.values()))
    _mark_repeats(list(found.values()))
    return list(found.values())


def below(top: Path) -> list[Path]:
    """Folders that may be runs."""
    found = []
    for here, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        if SUMMARY in files or CONFIG in files:
            found.append(Path(here))
    return found


def read(folder: Path) -> Run | None:
    """What lies in a folder; None if it is no run."""
    summary, bad = _summary(folder / SUMMARY)
    config = _yaml(folder / CONFIG)
    if not _is_config(config):
        config = summary.get("config")
    if not _is_config(config):
        config = {}
    if not config and "status" not in summary:
        if not (_marks(folder)):
            return None
        return Run(folder, "broken", summary, {}, bad or f"{CONFIG} cannot be read")
    if not summary:
        status, word = _without_summary(folder)
        return Run(folder, status, {}, config, bad or word)
    status = str(summary.get("status"))
    return Run(folder, status, summary, config, str(summary.get("error") or ""))


def _is_config(found: Any) -> bool:
    return isinstance(found, Mapping) and all(isinstance(found.get(part), Mapping) for part in PARTS)


def _marks(folder: Path) -> bool:
    """Whether something in a folder could only have come from a run."""
    signs = (events.EVENTS, "train.log", events.TABLE, "checkpoints/*.ckpt", ".hydra/overrides.yaml")
    return any(next(folder.glob(sign), None) is not None for sign in signs)


def _without_summary(folder: Path) -> tuple[str, str]:
    silent = time.time() - Run(folder, "").changed
    if silent < ALIVE:
        return "running", "no summary yet"
    return "unfinished", f"no summary; wrote last {_ago(silent)} ago: it was killed, or takes its time"


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _summary(path: Path) -> tuple[Mapping[str, Any], str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{path.name} cannot be read: {error}"
    return (found, "") if isinstance(found, dict) else ({}, f"{path.name} holds no summary")


def _yaml(path: Path) -> Any:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _name_tasks(runs: Sequence[Run]) -> None:
    """A run without a summary does not know its data source: it goes with those of the same task options."""
    key = json.dumps
    known = {
        key(run.config["task"], default=str, sort_keys=True): run.summary["task_label"]
        for run in runs
        if run.config and run.summary.get("task_label")
    }
    for run in runs:
        if run.config and not run.summary.get("task_label"):
            label = known.get(key(run.config["task"], default=str, sort_keys=True))
            if label:
                run.summary = {**run.summary, "task_label": label}


def _mark_repeats(runs: Sequence[Run]) -> None:
    """Of runs with the same options and the same seed only the newest counts: others are no more evidence.

    Nor is a run that another went on from.
    """
    folders = {str(run.folder.resolve()): run for run in runs}
    for run in runs:
        before = run.summary.get("resumed_from")
        if run.finished and isinstance(before, str):
            first = folders.get(str(Path(before).resolve().parent.parent))
            if first is not None and first is not run and first.task == run.task:
                first.repeats = run.folder
    kept: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.ended):
        if not run.finished or not run.config or run.seed is None:
            continue
        options = {key: value for key, value in run.options.items() if not BOOKKEEPING.fullmatch(key)}
        same = json.dumps([run.seed, run.task, options], default=str, sort_keys=True)
        if same in kept:
            kept[same].repeats = run.folder
        kept[same] = run
