"""The definition of least recently used access (Santoro et al. 2016, arXiv 1605.06065, section 3), in loops.

Slow on purpose: one batch row, one head, one slot at a time, so that each line is one equation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mannlab.kernels.ntm.naive import cosine


def least_used(usage: Tensor, count: int) -> list[int]:
    """The ``count`` rows of least ``usage[N]``, the least used first; of equals the lower row."""
    numbers = usage.tolist()
    return sorted(range(len(numbers)), key=lambda row: (numbers[row], row))[:count]


def naive_step(
    memory: Tensor,
    reading: Tensor,
    usage: Tensor,
    key: Tensor,
    gate: Tensor,
    add: Tensor,
    strength: Tensor,
    decay: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One step of all heads: write by the weights and the usage of the step before, then address and read.

    Args:
        memory: ``[B, N, W]``, of t - 1.
        reading: read weights of t - 1, ``[B, R, N]``.
        usage: of t - 1, ``[B, N]``.
        key: ``[B, R, W]``.
        gate: the sigmoid of alpha, ``[B, R]``.
        add: what is written, ``[B, R, W]``: the key itself in the paper.
        strength: what a cosine is multiplied by, ``[B, R]``: 1 in the paper.
        decay: gamma.
        epsilon: see :func:`mannlab.kernels.ntm.naive.cosine`.

    Returns:
        Reads ``[B, R, W]``; of t: memory, read weights, write weights ``[B, R, N]``, and usage.
    """
    parts: list[list[Tensor]] = [[], [], [], [], []]
    batch, heads, slots = reading.shape
    for b in range(batch):
        recycled = least_used(usage[b], heads)
        written = []
        for h in range(heads):
            indicator = [1.0 if i in recycled else 0.0 for i in range(slots)]
            row = [gate[b, h] * reading[b, h, i] + (1 - gate[b, h]) * indicator[i] for i in range(slots)]
            written.append(row)
        rows = []
        for i in range(slots):
            kept = torch.zeros_like(memory[b, i]) if i == recycled[0] else memory[b, i]
            for h in range(heads):
                kept = kept + written[h][i] * add[b, h]
            rows.append(kept)
        read, weights = [], []
        for h in range(heads):
            cosines = [cosine(key[b, h], rows[i], epsilon) for i in range(slots)]
            scores = (strength[b, h] * torch.stack(cosines)).exp()
            weights.append(scores / scores.sum())
            read.append(torch.stack([weights[h][i] * rows[i] for i in range(slots)]).sum(0))
        used = []
        for i in range(slots):
            accessed = sum(weights[h][i].detach() + written[h][i].detach() for h in range(heads))
            used.append(decay * usage[b, i].detach() + accessed)
        writing = torch.stack([torch.stack(row) for row in written])
        for part, made in zip(parts, (read, rows, weights, list(writing), used), strict=True):
            part.append(torch.stack(made))
    reads, memories, readings, writings, usages = (torch.stack(part) for part in parts)
    return reads, memories, readings, writings, usages
