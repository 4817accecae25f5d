"""What a memory holds: its rows as a map of colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

MOST_ROWS = 128
TALLEST = 9.0  # inches


def draw_contents(contents: Mapping[str, Tensor], first: int = 0, last: int | None = None) -> Figure:
    """One panel for each title: a line for each row, a column for each component; white is 0.

    Args:
        contents: by title, ``[rows, width]``.
        first: of the rows to show; a stretch may go on past the last row, with the first (see
            ``mannlab.plots.stream.touched``).
        last: one past the last; None: all rows, or as many as can be seen.
    """
    rows = max(len(tensor) for tensor in contents.values())
    end = min(first + MOST_ROWS, rows if last is None else last)
    height = min(TALLEST, max(2.2, 0.9 + 0.11 * (end - first)))
    widest = max(tensor.shape[1] for tensor in contents.values())
    width = min(14.0, len(contents) * (1.9 + 0.09 * min(widest, 64)))
    figure = Figure(figsize=(max(3.6, width), height), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(contents), squeeze=False)[0]
    for axis, (title, tensor) in zip(axes, contents.items(), strict=True):
        _panel(figure, axis, title, tensor.float().cpu().numpy(), first, end)
    return figure


def _panel(figure: Figure, axis: Any, title: str, values: Any, first: int, end: int) -> None:
    total = len(values)
    shown = values[np.arange(first, min(end, first + total)) % total]
    most = float(np.abs(shown).max(initial=0)) or 1.0
    extent = (-0.5, values.shape[1] - 0.5, first + len(shown) - 0.5, first - 0.5)
    shades = axis.imshow(
        shown, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest", extent=extent
    )
    named = title if len(shown) == total else f"{title}: {len(shown)} of {total:,}"
    axis.set_title(named, fontsize=10)
    axis.set_xlabel("component", fontsize=9)
    axis.set_ylabel("row", fontsize=9)
    axis.tick_params(labelsize=7, length=2)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.yaxis.set_major_formatter(lambda place, _: str(int(place) % total))
    figure.colorbar(shades, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
