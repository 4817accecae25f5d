"""The summary of a run: a JSON file and a table."""

from __future__ import annotations

import io
import json
import logging
import math
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mannlab.contracts import Task
from mannlab.training.checkpoints import replace_file, to_resume
from mannlab.training.generalisation import main_label

log = logging.getLogger(__name__)

FILE = "summary.json"
# Of a log record: the terminal, which is told in another way, leaves it out.
FILE_ONLY = {"file_only": True}


def versions() -> dict[str, str]:
    """Of Python and of the libraries that results may depend on."""
    found = {"python": platform.python_version()}
    for package in ("mannlab", "torch", "lightning", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def repeat_command(config: Mapping[str, Any]) -> str | None:
    """What to type to make the same run again; None for a run that was not started by the program."""
    overrides = config.get("overrides")
    if overrides is None:
        return None
    words = list(overrides)
    if "seed" in config and not any(word.lstrip("+").startswith("seed=") for word in words):
        words.append(f"seed={config['seed']}")
    return shlex.join(["python", "-m", "mannlab", *words])


def folded(command: str, width: int = 96) -> str:
    """A long command on several lines, as a shell takes it."""
    lines = [""]
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if lines[-1] and len(lines[-1]) + len(quoted) >= width:
            lines.append("   ")
        lines[-1] += f" {quoted}" if lines[-1] else quoted
    return " \\\n".join(lines)


def plain(value: Any) -> Any:
    """``value`` as JSON knows it; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        WriteError: the folder cannot be written.
    """
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


MANY_METRICS = 5
LOG_WIDTH = 160  # of tables that go to a file, where nothing need fit a screen


def results_table(task: Task, metrics: Mapping[str, float], stage: str = "test") -> Table | None:
    """One row a split, the main metric first; None if nothing was measured.

    Where a task has many metrics, one row a metric instead, so that it fits the screen.
    """
    splits = [split for split in task.splits(stage) if any(k.startswith(f"{split.stream}/") for k in metrics)]
    if not splits:
        return None
    names: list[str] = []
    for split in splits:
        found = [key.partition("/")[2] for key in metrics if key.startswith(f"{split.stream}/")]
        names += [name for name in found if name not in names]
    first = (task.objective.watched, task.objective.metric)
    names.sort(key=lambda name: (first.index(name) if name in first else 2, name == "loss_nats"))
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(stage)
    if len(names) > MANY_METRICS:
        for split in splits:
            table.add_column(split.label.replace("_", " ") or main_label(task), justify="right")
        for name in names:
            row = [metrics.get(f"{split.stream}/{name}") for split in splits]
            table.add_row(name.replace("_", " "), *map(_cell, row))
        return table
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for split in splits:
        values = [metrics.get(f"{split.stream}/{name}") for name in names]
        label = split.label.replace("_", " ") or main_label(task)
        table.add_row(label, *map(_cell, values))
    return table


def log_results(task: Task | None, summary: Mapping[str, Any], run_dir: Path) -> None:
    """The end of a run for its log file alone: what :func:`print_results` shows on the screen."""
    out = io.StringIO()
    if task is not None and summary["status"] != "failed":
        print_results(
            task, summary, run_dir, Console(file=out, highlight=False, soft_wrap=True, width=LOG_WIDTH)
        )
    for line in out.getvalue().splitlines():
        if line.strip():
            log.info("%s", line.rstrip(), extra=FILE_ONLY)
    for name, value in summary["metrics"].items():
        log.info("%s %.6g", name, value, extra=FILE_ONLY)


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, LOG_WIDTH)
    return console


def _cell(value: float | None) -> str:
    """A number for people; nothing where nothing was counted."""
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def print_results(
    task: Task, summary: Mapping[str, Any], run_dir: Path | None, console: Console | None = None
) -> None:
    """What came out, and where it lies."""
    console = console or _console()
    metrics = summary["metrics"]
    table = results_table(task, metrics, "test") or results_table(task, metrics, "val")
    console.print()
    if table is not None:
        console.print(table)
        console.print()
    if run_dir is None:
        return
    solved = summary.get("sequences_until_solved")
    words = {"completed": "finished", "solved": "solved", "interrupted": "interrupted", "failed": "failed"}
    line = f"{words[summary['status']]} after {summary['steps']:,} steps, {summary['sequences']:,} sequences"
    line += f", {summary['wall_seconds']:,.0f} s"
    if summary.get("stopped_by") == "trainer.max_time":
        line += ", stopped: trainer.max_time"
    console.print(line + (f" (solved at {solved:,} sequences)" if solved is not None else ""))
    level = summary.get("curriculum_level")
    if level is not None:
        console.print(f"curriculum  sizes up to {level:,}")
    console.print(f"run         {run_dir}")
    if summary["status"] == "interrupted":
        more = to_resume(run_dir)
        # A run that was stopped in its test has nothing left to train.
        if more is not None and not str(summary.get("error")).startswith("Interrupted"):
            console.print(f"go on       the same command with {more}")
    console.print(f"watch       tensorboard --logdir {outputs_root(run_dir)}")


def outputs_root(run_dir: Path) -> Path:
    """The folder to point TensorBoard at: ``outputs`` where the run lies in one, else the run's own."""
    for parent in run_dir.resolve().parents:
        if parent.name == "outputs":
            try:
                return parent.relative_to(Path.cwd())
            except ValueError:
                return parent
    return run_dir
