"""What was said before that the memory's reads go back to: of a translation, the words of its source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

LETTER = 0.08  # inches


def align(reading: Tensor, writing: Tensor, source: int) -> Tensor:
    """How far each step's reads come from what was written at each step of the source.

    A step reads slot n with weight r(n), and an earlier one wrote it with weight w(n): the sum over slots of
    r(n) w(n), rows scaled so that all earlier steps sum to at most 1. Heads count by how far they move: one
    that stays where it is tells nothing about which step is meant, and would make all of them alike.

    Args:
        reading: ``[T, heads, N]``.
        writing: ``[T, heads, N]``.
        source: steps of the source.

    Returns:
        ``[T - source, source]`` in [0, 1].
    """
    read, written = moving(reading), moving(writing)
    shares = (read @ written.T).tril(-1)
    shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-9)
    return shares[source:, :source]


def moving(weights: Tensor) -> Tensor:
    """Heads ``[T, heads, N]`` as one, ``[T, N]``, each by how much of its weight moves in a step."""
    moved = (weights[1:] - weights[:-1]).abs().sum(-1).mean(0) / 2
    if len(weights) < 2 or float(moved.sum()) <= 0:
        return weights.mean(1)
    return torch.einsum("thn,h->tn", weights, moved / moved.sum())


def recall(reading: Tensor, writing: Tensor, step: int) -> Tensor:
    """As :func:`align`, of each head at one step, not scaled: ``[step, heads]`` in [0, 1]."""
    return (writing[:step].mean(1) @ reading[step].T).clamp(0, 1)


def draw_alignment(weights: Tensor, source: Sequence[str], target: Sequence[str], title: str = "") -> Figure:
    """``weights[target, source]`` in [0, 1] as squares, dark is 1, what they belong to beside them."""
    rows, columns = weights.shape
    # Room for what is longer than a word.
    wide, tall = (LETTER * max(0, max(map(len, names), default=0) - 12) for names in (target, source))
    figure = Figure(
        figsize=(2.0 + 0.22 * max(columns, 8) + wide, 1.5 + 0.22 * max(rows, 5) + tall),
        dpi=100,
        layout="compressed",
    )
    axis = figure.subplots()
    axis.imshow(weights.numpy(), cmap="gray_r", vmin=0, vmax=max(float(weights.max()), 1e-6), aspect="equal")
    axis.set_xticks(np.arange(columns), [_plain(token) for token in source], rotation=90, fontsize=8)
    axis.set_yticks(np.arange(rows), [_plain(token) for token in target], fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=2)
    axis.set_xlabel(
        f"share of what is read that was written there\ndarkest: {float(weights.max()):.2f}", fontsize=8
    )
    if title:
        axis.set_title(_plain(title), fontsize=9, loc="right")
    return figure


def _plain(token: str) -> str:
    # A dollar begins a formula, and fonts lack what stands for broken bytes.
    return token.replace("$", r"\$").replace("\ufffd", "·")
