"""The files that a look at a sample leaves."""

from __future__ import annotations

from pathlib import Path

from mannlab.inspection import animation, page, picture
from mannlab.inspection.sample import Sample
from mannlab.training.checkpoints import replace_file


def write(sample: Sample, folder: Path) -> dict[str, Path]:
    """``inspect.png``, ``inspect.gif`` and ``inspect.html`` in a folder, by what they are.

    Raises:
        WriteError: the folder cannot be written.
    """
    paths = {kind: folder / f"inspect.{end}" for kind, end in KINDS.items()}
    figure, text = picture.draw(sample), page.page(sample)
    replace_file(paths["picture"], lambda temporary: figure.savefig(temporary, format="png"))
    replace_file(paths["animation"], lambda temporary: animation.save(sample, temporary))
    replace_file(paths["page"], lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return paths


KINDS = {"picture": "png", "animation": "gif", "page": "html"}
