"""An episode as a strip of images: what was to be said of each, and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

COLUMNS = 10
SHOWN = 100  # images; a longer episode is cut
CELL, PITCH, HEAD = 0.78, 1.24, 0.72  # inches: an image, from row to row, above the first row
RIGHT, WRONG, FIRST, QUIET = "#1a7f37", "#cf222e", "#8250df", "#57606a"


def draw_strip(
    images: Tensor,
    labels: Sequence[str],
    answers: Sequence[str],
    instances: Sequence[int],
    asked: Sequence[bool] | None = None,
) -> Figure:
    """The images of an episode in order, row by row.

    Above each stands its true label and which instance of its class it is; below, the answer: green with
    a tick if right, red with a cross if wrong. A class's first instance, at which the answer can only be
    a guess, has a violet, dashed frame.

    Args:
        images: ``float[T, height, width]``, 1 is ink.
        labels: what is true of each.
        answers: what the model said of each.
        instances: 1 for the first image of a class in the episode, 2 for the second, ...
        asked: where an answer was asked; elsewhere none is shown. None: everywhere.
    """
    shown = min(len(images), SHOWN)
    columns = min(COLUMNS, shown)
    step = 0.92 if max(map(len, labels)) < 3 else 1.12
    width, height = max(5.6, step * columns + 0.3), PITCH * -(-shown // columns) + HEAD
    figure = Figure(figsize=(width, height), dpi=100)
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    asked = [True] * len(images) if asked is None else asked
    right = sum(a == b and ask for a, b, ask in zip(labels, answers, asked, strict=True))
    title = f"{right} of {sum(asked)} right" + (f" (first {shown} shown)" if shown < len(images) else "")
    figure.text(0.5, 1 - 0.2 / height, title, fontsize=11, fontweight="bold", **centred)
    key = "above: true label ×instance    below: answer    dashed: first instance, a guess"
    figure.text(0.5, 1 - 0.43 / height, key, fontsize=8.5, color=QUIET, **centred)
    for index in range(shown):
        row, column = divmod(index, columns)
        left = (width - step * columns) / 2 + step * (column + 0.5) - CELL / 2
        bottom = height - HEAD - PITCH * row - CELL - 0.18
        axis = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
        axis.imshow(images[index].numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        _annotate(axis, labels[index], answers[index] if asked[index] else None, instances[index])
    return figure


def _annotate(axis: Any, label: str, answer: str | None, instance: int) -> None:
    colour = QUIET if answer is None else RIGHT if label == answer else WRONG
    size = 9 if len(label) < 3 else 8
    axis.set_title(f"{label} ×{instance}", fontsize=size, color=QUIET, pad=2.5)
    axis.set_xlabel(
        "" if answer is None else f"{answer} {'✓' if label == answer else '✗'}",
        fontsize=size,
        fontweight="bold",
        color=colour,
        labelpad=2,
    )
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color(FIRST if instance == 1 else colour)
        spine.set_linewidth(1.8)
        spine.set_linestyle((0, (2.5, 1.5)) if instance == 1 else "solid")
