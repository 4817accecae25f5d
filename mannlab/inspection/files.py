"""The files that a look at a sample leaves."""

from __future__ import annotations

from pathlib import Path

from mannlab.inspection.sample import Sample
from mannlab.training.checkpoints import replace_file


def write(sample: Sample, folder: Path) -> dict[str, Path]:
    """``inspect.png``, ``inspect.gif`` and ``inspect.html`` in a folder, by what they are."""
    return {}
