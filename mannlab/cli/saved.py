"""Saved runs, as commands name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mannlab import registry
from mannlab.errors import CheckpointError
from mannlab.sweep.record import FILE as SWEEP

OUTPUTS = Path("outputs")
CONFIG = "config.yaml"
LAST = "last"


def named(word: str) -> Path:
    """The run that a word means: a path, or ``last``, the newest with a checkpoint in outputs/.

    Raises:
        CheckpointError: there is nothing, or a sweep, which has a run for each of its jobs.
    """
    path = Path(word).expanduser()
    if word == LAST and not path.exists():
        runs = by_age()
        if not runs:
            raise CheckpointError("last: there are no runs in outputs/ yet.", "Train one: mannlab task=copy.")
        return runs[0]
    if not path.exists():
        raise CheckpointError(f"run: there is nothing at {path}.", newest())
    if (path / SWEEP).is_file():
        jobs = by_age(path)
        listing = "\n".join(f"  {job}" for job in jobs) or "None has a checkpoint yet."
        raise CheckpointError(f"{path} is a sweep.", f"Name one of its runs:\n{listing}")
    return path


def folder(run: Path) -> Path:
    """The folder of a run that is named by it, or by a checkpoint in it."""
    return run.parent.parent if run.is_file() else run


def by_age(top: Path = OUTPUTS) -> list[Path]:
    """The runs with a checkpoint below a folder, the newest first."""
    found = sorted(top.glob("**/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(path.parent.parent for path in found))


def newest(count: int = 5) -> str:
    """The newest runs in outputs/, as a hint."""
    listing = [f"  {path}" for path in by_age()[:count]]
    return "\n".join(["The newest runs are:", *listing]) if listing else "There are no runs in outputs/ yet."


def config(run: Path) -> dict[str, Any]:
    """The ``config.yaml`` of a run's folder.

    Raises:
        CheckpointError: it is missing or cannot be read.
    """
    import yaml

    path = run / CONFIG
    if not path.is_file():
        raise CheckpointError(f"There is no {CONFIG} in {run}.", f"Name a run's folder. {newest()}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "Was it changed by hand?") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in registry.ROOMS):
        raise CheckpointError(f"{path} is not the configuration of a run.", "Name a run's folder.")
    return found
