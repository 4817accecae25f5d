"""How a trained model does at sizes beyond those it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#1f5fa8", "#c2571a", "#1a7f37", "#8250df")
QUIET = "#57606a"
SPREAD = 16  # sizes that span more than this factor are drawn on a logarithmic axis

Points = Sequence[tuple[int, float]]


def draw_generalisation(
    panels: Mapping[str, Mapping[str, Points]],
    trained: int | Mapping[str, int] | None = None,
    as_trained: Mapping[str, float] = {},
    called: str = "sizes as trained",
) -> Figure:
    """A panel for each metric: its value against the size of the sequences, one line for each kind of size.

    Args:
        panels: metric to kind of size (such as ``"length"``) to points (size, value).
        trained: the largest size of training, of all kinds or by kind, marked by a dashed line.
        as_trained: each metric's value on a mixture of sizes, such as those of training: a dotted line.
        called: what the legend calls that mixture.
    """
    figure = Figure(figsize=(max(5.4, 4.4 * len(panels)), 3.6), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.15)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (metric, kinds) in zip(axes, panels.items(), strict=True):
        _panel(axis, metric, kinds, as_trained.get(metric), called)
        for size, label, colour in _ends(kinds, trained):
            axis.axvline(size, color=colour, linewidth=1, linestyle="--", label=label)
        axis.legend(fontsize=8, frameon=False)
    return figure


def _ends(kinds: Mapping[str, Points], trained: int | Mapping[str, int] | None) -> list[tuple[int, str, str]]:
    """Where training ends: sizes, what to say, and colours; one of each where all kinds end there."""
    if trained is None:
        return []
    sizes = {kind: trained if isinstance(trained, int) else trained.get(kind) for kind in kinds}
    if len(set(sizes.values())) == 1 and (size := next(iter(sizes.values()))) is not None:
        return [(size, f"trained up to {size:,}", QUIET)]
    return [
        (size, f"{kind} trained up to {size:,}", colour)
        for (kind, size), colour in zip(sizes.items(), COLOURS * len(kinds), strict=False)
        if size is not None
    ]


def _panel(axis: Any, metric: str, kinds: Mapping[str, Points], level: float | None, called: str) -> None:
    for (kind, points), colour in zip(kinds.items(), COLOURS * len(kinds), strict=False):
        finite = sorted((size, value) for size, value in points if math.isfinite(value))
        axis.plot(*zip(*finite, strict=True), marker="o", markersize=4, color=colour, label=kind)
    if level is not None and math.isfinite(level):
        axis.axhline(level, color=QUIET, linewidth=1, linestyle=":", label=called)
    sizes = [size for points in kinds.values() for size, _ in points]
    if max(sizes) > SPREAD * min(sizes):
        axis.set_xscale("log")
        axis.set_xticks(sorted(set(sizes)), [f"{size:,}" for size in sorted(set(sizes))])
        axis.minorticks_off()
    elif all(float(size).is_integer() for size in sizes):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.get_ylim()[0] > 0:
        axis.set_ylim(bottom=0)
    axis.set_xlabel(" or ".join(kinds), fontsize=9)
    axis.set_ylabel(metric.replace("_", " "), fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(color="#e6ecf3", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
