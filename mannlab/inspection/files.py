"""The files that a look at a sample leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mannlab.inspection import animation, page, picture
from mannlab.inspection.sample import Sample
from mannlab.progress import progress
from mannlab.training.checkpoints import replace_file


def write(sample: Sample, folder: Path) -> dict[str, Path]:
    """``inspect.png``, ``inspect.gif`` and ``inspect.html`` in a folder, by what they are.

    Raises:
        WriteError: the folder cannot be written.
    """
    paths = {kind: folder / f"inspect.{end}" for kind, end in KINDS.items()}
    text = page.page(sample)
    makers: dict[str, Callable[[Path], object]] = {
        "picture": lambda path: picture.draw(sample).savefig(path, format="png"),
        "animation": lambda path: animation.save(sample, path),
        "page": lambda path: path.write_text(text, encoding="utf-8"),
    }
    for kind, make in progress(list(makers.items()), "Drawing", "files"):
        replace_file(paths[kind], make)
    return paths


KINDS = {"picture": "png", "animation": "gif", "page": "html"}
