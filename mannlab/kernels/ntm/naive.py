"""The definition of a Neural Turing Machine's step (Graves et al. 2014, arXiv 1410.5401), in loops.

Slow on purpose: one batch row, one head, one slot at a time, so that each line is one equation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cosine(u: Tensor, v: Tensor, epsilon: float) -> Tensor:
    """Equation 6, with norms kept from zero: the root of the squared norm plus ``epsilon``."""
    return torch.dot(u, v) / (torch.sqrt(torch.dot(u, u) + epsilon) * torch.sqrt(torch.dot(v, v) + epsilon))


def address(
    memory: Tensor,
    previous: Tensor,
    key: Tensor,
    strength: Tensor,
    gate: Tensor,
    shift: Tensor,
    exponent: Tensor,
    epsilon: float,
) -> Tensor:
    """Weights of one head (equations 5 to 9).

    Args:
        memory: ``[N, W]``.
        previous: weights of the last step, ``[N]``.
        key: ``[W]``.
        strength, gate, exponent: scalars.
        shift: ``[S]``, S odd, entry j for a move of ``j - S // 2``.
        epsilon: see :func:`cosine`.

    Returns:
        ``[N]``, summing to 1.
    """
    slots, shifts = memory.shape[0], shift.shape[0]
    scores = torch.stack([strength * cosine(key, memory[i], epsilon) for i in range(slots)])
    content = scores.exp() / scores.exp().sum()
    gated = gate * content + (1 - gate) * previous
    moved = []
    for i in range(slots):
        terms = [gated[(i - (j - shifts // 2)) % slots] * shift[j] for j in range(shifts)]
        moved.append(torch.stack(terms).sum())
    powered = torch.stack(moved) ** exponent
    return powered / powered.sum()


def naive_step(
    memory: Tensor,
    previous: Tensor,
    key: Tensor,
    strength: Tensor,
    gate: Tensor,
    shift: Tensor,
    exponent: Tensor,
    erase: Tensor,
    add: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of all heads: address on the memory as it was, read, erase, add (equations 2 to 9).

    Args:
        memory: ``[B, N, W]``.
        previous: ``[B, H, N]``, read heads first.
        key: ``[B, H, W]``.
        strength, gate, exponent: ``[B, H]``.
        shift: ``[B, H, S]``.
        erase, add: ``[B, V, W]`` of the V heads that write, the last of the H.
        epsilon: see :func:`cosine`.

    Returns:
        Reads ``[B, H - V, W]``, weights ``[B, H, N]`` and the next memory ``[B, N, W]``.
    """
    reads, all_weights, memories = [], [], []
    heads, writers = key.shape[1], erase.shape[1]
    for b in range(memory.shape[0]):
        weights = [
            address(
                memory[b],
                previous[b, h],
                key[b, h],
                strength[b, h],
                gate[b, h],
                shift[b, h],
                exponent[b, h],
                epsilon,
            )
            for h in range(heads)
        ]
        readers = heads - writers
        row_sums = [sum(w[i] * memory[b, i] for i in range(memory.shape[1])) for w in weights[:readers]]
        rows = []
        for i in range(memory.shape[1]):
            row = memory[b, i]
            for v in range(writers):
                row = row * (1 - weights[readers + v][i] * erase[b, v])
            for v in range(writers):
                row = row + weights[readers + v][i] * add[b, v]
            rows.append(row)
        reads.append(torch.stack([torch.as_tensor(r) for r in row_sums]))
        all_weights.append(torch.stack(weights))
        memories.append(torch.stack(rows))
    return torch.stack(reads), torch.stack(all_weights), torch.stack(memories)
