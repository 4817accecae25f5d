"""The definition of Sparse Access Memory, over all slots and purely functional.

Readable and slow: every step makes a new memory. The engines are held to it, in float64.
Source: Rae et al. 2016, "Scaling Memory-Augmented Neural Networks with Sparse Reads and Writes"
(arXiv 1610.09027), section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from mannlab.kernels.sam.layout import DELTA, NORM_EPSILON, Layout


class NaiveState(NamedTuple):
    """Attributes: ``memory[B, N, W]``; ``weights[B, H, N]`` of the last reads; ``stamps int64[B, N]``,
    higher for rows accessed later; ``time``, the number of steps made."""

    memory: Tensor
    weights: Tensor
    stamps: Tensor
    time: int


def start(memory: Tensor, heads: int) -> NaiveState:
    """The state before the first step, from ``memory[B, N, W]``. Row 0 is the least recently used."""
    batch, slots, _ = memory.shape
    stamps = torch.arange(slots, device=memory.device).expand(batch, -1) - slots
    return NaiveState(memory, memory.new_zeros(batch, heads, slots), stamps, 0)


def step(
    interface: Tensor, state: NaiveState, layout: Layout, valid: Tensor | None = None
) -> tuple[Tensor, NaiveState]:
    """One step: ``interface[B, I]`` to ``reads[B, H * W]`` and the next state.

    Reads are zeros where ``valid[B]`` is 0.
    """
    memory, weights, stamps, time = state
    heads, slots = layout.heads, layout.slots
    key, strength, add, write_gate, old_gate = fields(interface, layout)

    recycled = one_hot(stamps.argsort(dim=1)[:, :heads], slots).to(memory.dtype)  # [B, H, N]
    writing = write_gate * (old_gate * weights + (1 - old_gate) * recycled)
    new = memory * (1 - recycled.sum(1)).unsqueeze(-1)
    for head in range(heads):
        new = new + writing[:, head, :, None] * add[:, head, None, :]

    reading = sparse_softmax(cosine(key, new), strength, layout.sparsity)
    reads = torch.einsum("bhn,bnw->bhw", reading, new).flatten(1)

    accessed = (writing + reading).sum(1) > DELTA
    now = time * slots + torch.arange(slots, device=memory.device)
    new_stamps = torch.where(accessed, now, stamps)
    if valid is not None:
        real = valid.bool()
        reads = torch.where(real[:, None], reads, torch.zeros_like(reads))
        new = torch.where(real[:, None, None], new, memory)
        reading = torch.where(real[:, None, None], reading, weights)
        new_stamps = torch.where(real[:, None], new_stamps, stamps)
    return reads, NaiveState(new, reading, new_stamps, time + 1)


def fields(interface: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Key and add vector are ``[B, H, W]``; strength, write gate and old gate ``[B, H, 1]``.

    The paper's interface has no strength, and its add vector no tanh.
    """
    key, strength, add, write_gate, old_gate = interface.split(layout.fields, dim=-1)
    shape = (-1, layout.heads, layout.width)
    return (
        key.reshape(shape),
        softplus(strength).unsqueeze(-1),
        torch.tanh(add).reshape(shape),
        torch.sigmoid(write_gate).unsqueeze(-1),
        torch.sigmoid(old_gate).unsqueeze(-1),
    )


def cosine(key: Tensor, memory: Tensor) -> Tensor:
    """Cosine of every key with every row: ``[B, H, W]`` and ``[B, N, W]`` to ``[B, H, N]``."""
    key = key / (key.square().sum(-1, keepdim=True) + NORM_EPSILON).sqrt()
    norms = (memory.square().sum(-1) + NORM_EPSILON).sqrt()
    # Not a matrix product: rows that are equal must score equal to the last bit, or ties break at random.
    return (key.unsqueeze(2) * memory.unsqueeze(1)).sum(-1) / norms.unsqueeze(1)


def sparse_softmax(similarity: Tensor, strength: Tensor, sparsity: int) -> Tensor:
    """Softmax over the K best of ``[B, H, N]``, zero elsewhere; of equal ones the lower row wins."""
    best = similarity.sort(dim=-1, descending=True, stable=True).indices[..., :sparsity]
    weights = torch.softmax(similarity.gather(-1, best) * strength, dim=-1)
    return torch.zeros_like(similarity).scatter(-1, best, weights)
