"""A map of how often each of very many values is used."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d

LARGEST = 512  # squares on a side


def draw_usage(reads: Tensor) -> Figure:
    """The values on their square: row i, column j is the value of half-keys i and j.

    Args:
        reads: how often each value was read, ``[n * n]``. A large map is shown as means of neighbours.
    """
    size = math.isqrt(len(reads))
    square = reads.float().cpu().view(1, 1, size, size)
    step = math.ceil(size / LARGEST)
    if step > 1:
        square = avg_pool2d(square, step, ceil_mode=True)
    shown = square[0, 0].numpy()
    figure = Figure(figsize=(6.2, 5), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("black")  # never read
    most = float(shown.max())
    norm: Any = LogNorm(vmin=min(1.0, most / 2) or 0.5, vmax=max(most, 1.0))
    extent = (-0.5, size - 0.5, size - 0.5, -0.5)
    shades = axis.imshow(
        shown, cmap="viridis", norm=norm, interpolation="nearest", extent=extent, aspect="auto"
    )
    axis.set(xlabel="second half-key", ylabel="first half-key")
    used = 100 * float((reads > 0).double().mean())
    axis.set_title(f"{used:.1f} % of {len(reads):,} values read", fontsize=10)
    figure.colorbar(shades, label="reads" if step == 1 else f"reads, mean of {step} × {step}")
    return figure
