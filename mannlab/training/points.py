"""Rows of a memory as points with labels, for TensorBoard's projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mannlab.contracts import Batch, StreamSpec, Token, Vector
from mannlab.plots.stream import TOUCHED

MOST = 512
BITS_SHOWN = 16


def chosen(rows: int, weights: Mapping[str, Tensor]) -> Tensor:
    """Which rows to show, in order: all of few, else those that heads looked at most; ``int64``.

    Args:
        rows: how many there are.
        weights: by title, ``[T, heads, N]``; those of another N than ``rows`` say nothing.
    """
    peaks = [weight.amax(dim=(0, 1)) for weight in weights.values() if weight.shape[-1] == rows]
    if rows <= MOST or not peaks:
        return torch.arange(min(rows, MOST))
    return torch.stack(peaks).amax(0).topk(MOST).indices.sort().values


def labels_of(
    rows: Tensor,
    total: int,
    weights: Mapping[str, Tensor],
    said: Sequence[str],
    known: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """A label for each row, by column: its number, when heads looked at it most, and what came in then.

    Args:
        rows: which, ``int64``.
        total: how many rows there are.
        weights: by title such as ``write weights``, ``[T, heads, N]``.
        said: what came in at each step.
        known: more columns, of all rows.
    """
    columns: dict[str, list[str]] = {}
    words = {"read weights": "read", "write weights": "written"}
    for title, weight in weights.items():
        if weight.shape[-1] != total:
            continue
        peak, step = weight[..., rows].amax(1).max(0)
        looked = [int(t) if p > TOUCHED else None for p, t in zip(peak, step, strict=True)]
        word = words.get(title, title)
        columns[f"{word} at step"] = ["never" if t is None else str(t) for t in looked]
        if word == "written" and any(said):
            columns["when this came in"] = ["-" if t is None else said[t] for t in looked]
    columns |= {name: [labels[int(row)] for row in rows] for name, labels in known.items()}
    columns["row"] = [str(int(row)) for row in rows]
    # The projector shows the first column beside the points, until another is chosen.
    first = ("when this came in", "written at step")
    return dict(sorted(columns.items(), key=lambda item: [item[0] != name for name in first]))


def inputs_said(spec: StreamSpec, batch: Batch) -> list[str]:
    """What came in at each step of the first sequence, in short; empty where it cannot be said so."""
    steps = batch.targets.shape[1]
    said: list[list[str]] = [[] for _ in range(steps)]
    for name, channel in spec.inputs.items():
        values = batch.inputs[name][0].cpu()
        if isinstance(channel, Token):
            words = [str(int(value)) for value in values]
        elif (
            isinstance(channel, Vector)
            and channel.size <= BITS_SHOWN
            and bool(((values == 0) | (values == 1)).all())
        ):
            words = ["".join(str(int(bit)) for bit in row) for row in values]
        else:
            continue
        for parts, word in zip(said, words, strict=True):
            parts.append(word)
    return [" ".join(parts) for parts in said]
