"""A sample as one picture: the stream above, heads below, then what slots hold, on one axis of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mannlab.inspection import colours
from mannlab.inspection.colours import unit
from mannlab.inspection.sample import Head, Row, Sample, Slots, cut, gaps, window

MOST_STEPS = 1000
WRITTEN = 110  # steps whose texts have room
LETTERS = 30
COLUMN = 0.155  # inches a step
SMALL = 7


@dataclass(frozen=True)
class Panel:
    """A strip of the figure: its title, its height in inches, and what draws it on an axis."""

    title: str
    height: float
    draw: Callable[[Any], None]
    colour: colours.Colour = colours.INK


def draw(sample: Sample) -> Figure:
    """The picture; of very long samples the first steps."""
    whole = sample.steps
    sample = window(sample, 0, MOST_STEPS)
    width = min(16.0, max(6.4, 1.9 + COLUMN * sample.steps))
    column = (width - 1.9) / sample.steps
    panels = [panel for row in sample.rows for panel in stream(row, sample, column)]
    if sample.scored.any():
        panels.append(Panel("right?", 0.1, lambda axis: _image(axis, colours.verdicts(sample)[None])))
    for memory in sample.memories:
        panels += [weights(head, memory) for head in memory.heads]
        panels += [held(memory)] if memory.rows is not None and not memory.fixed else []
    heights = [panel.height for panel in panels]
    figure = Figure(figsize=(width, sum(heights) + 0.1 * len(panels) + 1.0), dpi=110)
    figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.04)
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True, height_ratios=heights))
    for axis, panel in zip(axes, panels, strict=True):
        _frame(axis, panel)
        if sample.segment > 1:
            _segments(axis, sample)
    axes[0].set_title(_title(sample, whole), fontsize=9, loc="left")
    ends = (-0.5, sample.steps - 0.5)
    axes[-1].set_xlim(*ends)
    axes[-1].tick_params(bottom=True, labelbottom=True)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].xaxis.set_major_formatter(lambda x, _: f"{int(x) + sample.first}")
    axes[-1].set_xlabel("time step", fontsize=8)
    return figure


def _title(sample: Sample, whole: int) -> str:
    task, model, number = (sample.facts.get(title, "") for title in ("task", "model", "sample"))
    said = f"{task}, {model}: sample {number}, {sample.verdict}"
    return said + (f" (the first {sample.steps:,} of {whole:,} steps)" if whole > sample.steps else "")


def stream(row: Row, sample: Sample, column: float) -> list[Panel]:
    """One row of the stream, or nothing if it has no room."""
    if row.cells is not None:
        pixels = colours.cells(row.cells).transpose(1, 0, 2)
        height = min(1.3, max(0.2, 0.11 * len(pixels)))
        return [Panel(row.title, height, lambda axis: _image(axis, pixels))]
    if row.images is not None:
        images = row.images
        return [Panel(row.title, max(0.12, column), lambda axis: _thumbnails(axis, images))]
    if sample.steps > WRITTEN or not any(row.texts):
        return []
    texts = [cut(text, LETTERS).replace("$", r"\$") for text in row.texts]
    tones = [colours.INK] * sample.steps
    if row is sample.output:
        tones = [colours.RIGHT if right else colours.WRONG for right in sample.right]
    flat = max(map(len, texts)) <= max(1, int(column / 0.075))

    def write(axis: Any) -> None:
        axis.set_ylim(0, 1)
        for step, (text, tone) in enumerate(zip(texts, tones, strict=True)):
            how = (
                {"ha": "center", "va": "center"} if flat else {"ha": "center", "va": "bottom", "rotation": 90}
            )
            axis.text(step, 0.5 if flat else 0.03, text, fontsize=SMALL, color=unit(tone), **how)

    return [Panel(row.title, 0.16 if flat else 0.1 + 0.056 * max(map(len, texts)), write)]


def weights(head: Head, memory: Slots) -> Panel:
    """Where a head looked."""
    colour = colours.WRITE if head.writes else colours.READ
    pixels = colours.shade(np.clip(head.weights / head.scale, 0, 1), colour).transpose(1, 0, 2)
    scale = "" if head.scale == 1 else f"\nto {head.scale:.2g}"
    name = " ".join(part for part in (memory.title, head.title) if part)
    many = len(memory.heads) > 4
    height = min(1.0 if many else 2.0, max(0.35, 0.06 * len(pixels)))

    def paint(axis: Any) -> None:
        _image(axis, pixels)
        _slots(axis, memory)

    return Panel(name + scale, height, paint, colour)


def held(memory: Slots) -> Panel:
    """What slots hold, as colours: alike where contents are alike."""
    assert memory.rows is not None
    pixels = colours.by_content(memory.rows).transpose(1, 0, 2)

    def paint(axis: Any) -> None:
        _image(axis, pixels)
        _slots(axis, memory)

    return Panel("contents\n(like colours:\nlike contents)", min(2.0, max(0.5, 0.06 * len(pixels))), paint)


# ---------------------------------------------------------------------- on an axis


def _image(axis: Any, pixels: colours.Pixels) -> None:
    axis.imshow(pixels, aspect="auto", interpolation="nearest")


def _thumbnails(axis: Any, images: Any) -> None:
    for step, image in enumerate(images):
        extent = (step - 0.46, step + 0.46, 1, 0)
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=255, aspect="auto", extent=extent)
    axis.set_ylim(1, 0)


def _slots(axis: Any, memory: Slots) -> None:
    last = len(memory.shown) - 1
    axis.set_yticks([0, last] if last else [0], [str(memory.shown[0]), str(memory.shown[last])][: last + 1])
    axis.yaxis.tick_right()
    for place in gaps(memory.shown) if len(gaps(memory.shown)) < 8 else []:
        axis.axhline(place - 0.5, color=unit(colours.QUIET), linewidth=0.5, linestyle=":")


def _segments(axis: Any, sample: Sample) -> None:
    for step in range(sample.segment - sample.first % sample.segment, sample.steps, sample.segment):
        axis.axvline(step - 0.5, color=unit(colours.QUIET), linewidth=0.6)


def _frame(axis: Any, panel: Panel) -> None:
    axis.set_yticks([])
    panel.draw(axis)
    axis.tick_params(labelsize=SMALL, length=2, bottom=False, labelbottom=False)
    axis.set_ylabel(
        panel.title, rotation=0, ha="right", va="center", fontsize=8, color=unit(panel.colour), labelpad=6
    )
    for spine in axis.spines.values():
        spine.set_color(unit(colours.LINE))
        spine.set_linewidth(0.6)
