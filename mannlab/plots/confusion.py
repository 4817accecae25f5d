"""Which label was answered for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

NAMED = 32  # labels; of more, only some are named on the axes
NUMBERED = 10  # labels; up to so many, shares are written in the squares


def draw_confusion(counts: Mapping[str, Tensor], names: Sequence[str], what: str = "label") -> Figure:
    """A square for each panel: row is what is true, column is what was answered; rows add up to 1.

    Args:
        counts: by title, ``int64[K, K]``, how often each was answered for each.
        names: of the K labels.
        what: what they are called.
    """
    size = len(names)
    figure = Figure(figsize=(3.1 * max(1, len(counts)) + 0.9, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots(1, max(1, len(counts)), squeeze=False)[0]
    ticks = list(range(size)) if size <= NAMED else [0, size // 2, size - 1]
    for axis, (title, table) in zip(axes, counts.items(), strict=False):
        total = table.sum()
        shares = table.double() / table.sum(1, keepdim=True).clamp_min(1)
        shades = axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        right = 100 * float(table.diagonal().sum() / total.clamp_min(1))
        axis.set_title(f"{title}: {right:.0f} % of {int(total):,} right", fontsize=9)
        axis.set_xticks(ticks, [names[tick] for tick in ticks], fontsize=7)
        axis.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=7)
        axis.set_xlabel(f"{what} answered", fontsize=8)
        for row in range(size if size <= NUMBERED else 0):
            for column in range(size):
                share = float(shares[row, column])
                colour = "white" if share > 0.55 else "black"
                axis.text(
                    column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour
                )
    axes[0].set_ylabel(f"true {what}", fontsize=8)
    if counts:
        figure.colorbar(shades, ax=list(axes), shrink=0.8).set_label(f"share of the true {what}", fontsize=8)
    return figure
