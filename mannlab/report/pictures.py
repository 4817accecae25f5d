"""Pictures that runs left, small enough to travel inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mannlab.report.groups import Group, Section
from mannlab.report.runs import Run

ROOM = 2_000_000  # characters that all pictures of a page may take
WIDEST = 900  # pixels
COLOURS = 64
EACH = 8  # pictures of a group
DRAWN = "generalisation"  # the page has a chart of its own


@dataclass(frozen=True)
class Picture:
    """A picture as a ``data:`` address, with its size in pixels."""

    title: str
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Album:
    """The pictures of one run, which stands for its group; ``left_out`` did not fit."""

    group: Group
    run: Run
    pictures: tuple[Picture, ...]
    left_out: int


def albums(sections: Sequence[Section], room: int = ROOM) -> list[list[Album]]:
    """The pictures of each section's groups, as far as there is room; first the first one of every group."""
    chosen = [
        [(group, run, _wanted(run)) for group in section.groups if (run := typical(section, group))]
        for section in sections
    ]
    kept: dict[tuple[int, int], list[Picture]] = {}
    for turn in range(EACH):
        for i, section in enumerate(chosen):
            for j, (_, _, paths) in enumerate(section):
                if turn < len(paths) and room > 0 and (found := shrunk(paths[turn])) is not None:
                    if len(found.address) <= room:
                        kept.setdefault((i, j), []).append(found)
                    room -= len(found.address)
    return [
        [
            Album(group, run, tuple(kept.get((i, j), ())), len(paths) - len(kept.get((i, j), ())))
            for j, (group, run, paths) in enumerate(section)
            if paths
        ]
        for i, section in enumerate(chosen)
    ]


def typical(section: Section, group: Group) -> Run | None:
    """The best run of a group that left pictures; where nobody knows what is best, the first."""
    runs = [run for run in group.counted if run.pictures()] or [run for run in group.runs if run.pictures()]
    if not runs:
        return None
    metric = section.full(section.objective or (section.metrics or [""])[0])
    known = [run for run in runs if metric in run.metrics]
    if not known or section.mode is None:
        return runs[0]
    return (max if section.mode == "max" else min)(known, key=lambda run: run.metrics[metric])


def _wanted(run: Run) -> list[Path]:
    """Those of the test if there are any; what shows the memory first, then the main set, then others."""
    paths = [path for path in run.pictures() if DRAWN not in path.stem]
    tested = [path for path in paths if path.stem.startswith("test")]

    def rank(path: Path) -> tuple[int, int, str]:
        return "memory" not in path.stem, len(path.stem), path.stem

    return sorted(tested or paths, key=rank)


def shrunk(path: Path) -> Picture | None:
    """A picture in fewer colours and at most ``WIDEST`` wide; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as source:
            image = source.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if image.width > WIDEST:
        height = max(1, round(image.height * WIDEST / image.width))
        image = image.resize((WIDEST, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE).save(
        out, "PNG", optimize=True
    )
    address = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(path.stem.replace("_", " "), address, image.width, image.height)
