"""A stream over time, as in the figures of Graves et al. 2014: what came in and out, where heads looked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

EMPTY = "#e6ecf3"  # where nothing is asked
SLOTS_SHOWN = 48
MANY = 6  # panels, of which each is lower
FAINT = 0.25  # a head whose weights are nowhere above it would look blank
TOUCHED = 0.05


def draw_stream(rows: Mapping[str, Tensor], weights: Mapping[str, Tensor], segment: int = 1) -> Figure:
    """Rows of grey squares over time: 0 is white, 1 is black, everywhere.

    Args:
        rows: by title, ``[T, size]`` in [0, 1]; NaN is left empty.
        weights: by title, ``[T, heads, N]`` in [0, 1]; one panel a head. Where a memory has many slots,
            the stretch that heads touched is shown and its size said (where it goes on past the last slot,
            slot 0 is marked); a head that looks everywhere at once has a scale of its own, and its darkest
            value beside it.
        segment: steps that share one step of the memory; more than 1: lines between them.
    """
    panels = [(title, row.T.numpy(), 0, 0, 1.0) for title, row in rows.items()]
    first, last = touched(weights)
    for title, weight in weights.items():
        heads, slots = weight.shape[1:]
        stretch = np.arange(first, last) % slots
        for head in range(heads):
            name = title if heads == 1 else f"{title} {head + 1}"
            values = weight[:, head, stretch].T.numpy()
            top = float(values.max(initial=0))
            if 0 < top < FAINT:
                panels.append((f"{name}\ndarkest: {top:.2g}", values, slots, first, top))
            else:
                panels.append((name, values, slots, first, 1.0))
    steps = max((panel[1].shape[1] for panel in panels), default=1)
    tallest = 4.0 if len(panels) <= MANY else 2.0
    heights = [min(tallest, max(0.45, 0.11 * len(panel[1]))) for panel in panels]
    figure = Figure(
        figsize=(min(14.0, max(5.0, 1.6 + 0.13 * steps)), 0.6 + sum(heights) + 0.16 * len(panels)), dpi=100
    )
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.04)
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True, height_ratios=heights))
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, *panel)
        for step in range(segment, steps, segment) if segment > 1 else []:
            axis.axvline(step - 0.5, color="#8a94a3", linewidth=0.7)
    axes[-1].set_xlabel("time step", fontsize=9)
    axes[-1].tick_params(bottom=True, labelbottom=True)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _panel(axis: Any, title: str, values: Any, slots: int, first: int, top: float) -> None:
    axis.set_facecolor(EMPTY)
    size, steps = values.shape
    extent = (-0.5, steps - 0.5, first + size - 0.5, first - 0.5)
    axis.imshow(
        values, cmap="gray_r", vmin=0, vmax=top, aspect="auto", interpolation="nearest", extent=extent
    )
    axis.set_ylabel(
        title.replace(" weights", "\nweights") if slots else title,
        rotation=0,
        ha="right",
        va="center",
        fontsize=9,
    )
    axis.tick_params(labelsize=7, length=2, bottom=False)
    ends = [first, first + size - 1] if slots else []
    if first + 1 < slots < first + size - 2:
        ends.insert(1, slots)  # where the circle closes
    axis.set_yticks(ends, [str(end % slots) for end in ends])
    axis.yaxis.tick_right()
    if slots:
        beyond = 8 + 5 * len(str(slots))  # points: right of the numbers
        axis.annotate(
            "slot" if size == slots else f"{size} of {slots:,} slots",
            (1, 0.5),
            (beyond, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            rotation=90,
            va="center",
            fontsize=7,
        )
    for spine in axis.spines.values():
        spine.set_color("#8a94a3")
        spine.set_linewidth(0.6)


def touched(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """The stretch of slots to show: all of few, else the shortest that holds those some head touched.

    Returns:
        First slot and one past the last; heads move in a circle, so the stretch may go on past the last
        slot of the memory (indices are then modulo their number). At least 16 slots.
    """
    if not weights:
        return 0, 0
    slots = next(iter(weights.values())).shape[-1]
    if slots <= SLOTS_SHOWN:
        return 0, slots
    peak = np.max([weight.numpy().max(axis=(0, 1)) for weight in weights.values()], axis=0)
    (used,) = np.nonzero(peak > TOUCHED)
    if len(used) == 0:
        return 0, 16
    gaps = np.diff(np.append(used, used[0] + slots))
    widest = int(gaps.argmax())
    first = int(used[(widest + 1) % len(used)])
    last = first + slots - int(gaps[widest]) + 1
    margin = max(1, -(-(16 - (last - first)) // 2))
    if last - first + 2 * margin >= slots:
        return 0, slots
    start, stretch = first - margin, last - first + 2 * margin
    if last <= slots:  # it lies within the memory: so does its margin
        start = min(max(start, 0), slots - stretch)
    return start % slots, start % slots + stretch
