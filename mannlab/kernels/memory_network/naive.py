"""The definition: one sequence, one step, one hop and one slot at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mannlab.kernels.memory_network.attention import Hops

Slot = tuple[Tensor, int]  # its embeddings [M, W], and how many slots are newer, empty ones counted


def run(
    queries: Tensor,
    contents: Tensor,
    gaps: Tensor,
    valid: Tensor,
    state: Sequence[Sequence[Slot]],
    hops: Hops,
) -> tuple[Tensor, list[list[Slot]]]:
    """Read, then write, at each real step.

    Args:
        queries: ``[B, T, W]``.
        contents: ``[B, T, M, W]``, the embeddings of the slot that each step writes.
        gaps: ``int[B, T]``, empty slots that come before each step.
        valid: ``[B, T]``.
        state: for each sequence its slots, oldest first.
        hops: see :class:`Hops`.

    Returns:
        ``u[B, T, W]`` (zeros at padded steps) and the slots afterwards.
    """
    rows, after = [], []
    for b in range(queries.shape[0]):
        slots, reads = list(state[b]), []
        for t in range(queries.shape[1]):
            if not valid[b, t]:
                reads.append(torch.zeros_like(queries[b, t]))
                continue
            slots = _older(slots, int(gaps[b, t]), hops.slots)
            reads.append(_read(queries[b, t], slots, hops))
            slots = [*_older(slots, 1, hops.slots), (contents[b, t], 0)]
        rows.append(torch.stack(reads))
        after.append(slots)
    return torch.stack(rows), after


def _older(slots: list[Slot], by: int, most: int) -> list[Slot]:
    return [(content, age + by) for content, age in slots if age + by < most]


def _read(u: Tensor, slots: list[Slot], hops: Hops) -> Tensor:
    for hop, (key, value) in enumerate(hops.pairs):
        scores, values = [], []
        for content, age in slots:
            k, v = content[key], content[value]
            if hops.temporal is not None:
                k, v = k + hops.temporal[key, age], v + hops.temporal[value, age]
            scores.append((u * k).sum())
            values.append(v)
        total = torch.zeros_like(u)
        if slots:
            weights = torch.stack(scores)
            if not hops.linear:
                weights = weights.exp() / weights.exp().sum()
            for weight, v in zip(weights, values, strict=True):
                total = total + weight * v
        u = _next(u, total, hop, hops)
    return u


def _next(u: Tensor, o: Tensor, hop: int, hops: Hops) -> Tensor:
    if hops.matrices:
        matrix = hops.matrices[hop]
        u = matrix @ (u + o) if hops.after else matrix @ u + o
    else:
        u = u + o
    positive = torch.arange(len(u)) < hops.rectified
    return torch.where(positive, u.clamp_min(0), u)
