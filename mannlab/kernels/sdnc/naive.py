"""The definition of the Sparse Differentiable Neural Computer, over all slots and purely functional.

Access is that of Sparse Access Memory (``kernels.sam.naive``). Besides, two matrices link rows in the order
of writing: ``prev[i, j]`` says how surely row j was written just before row i, ``next[i, j]`` just after.
They are the two halves of the linkage matrix of Graves et al. 2016 (Nature 538), each decaying with the
writes to one end of a link only, so that both stay sparse by row. Source: Rae et al. 2016
(arXiv 1610.09027), the appendix on the SDNC: at most L links a row, and no gradient through links.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mannlab.kernels.sam import naive as sam
from mannlab.kernels.sam.layout import DELTA
from mannlab.kernels.sdnc.layout import Layout


class NaiveState(NamedTuple):
    """Attributes: ``memory[B, N, W]``; ``weights[B, H, N]`` of the last reads; ``stamps int64[B, N]``,
    higher for rows accessed later; ``time``; ``next[B, N, N]``, ``prev[B, N, N]``, ``last[B, N]``."""

    memory: Tensor
    weights: Tensor
    stamps: Tensor
    time: int
    next: Tensor
    prev: Tensor
    last: Tensor


def start(memory: Tensor, heads: int) -> NaiveState:
    """The state before the first step, from ``memory[B, N, W]``."""
    first = sam.start(memory, heads)
    batch, slots, _ = memory.shape
    links = memory.new_zeros(batch, slots, slots)
    return NaiveState(*first, links, links, memory.new_zeros(batch, slots))


def step(
    interface: Tensor, state: NaiveState, layout: Layout, valid: Tensor | None = None
) -> tuple[Tensor, NaiveState]:
    """One step: ``interface[B, I]`` to ``reads[B, H * W]`` and the next state."""
    memory, weights, stamps, time = state[:4]
    heads, slots = layout.heads, layout.slots
    modes, rest = interface.split([3 * heads, layout.interface - 3 * heads], dim=-1)
    backward_mode, content_mode, forward_mode = (
        modes.reshape(-1, heads, 3).softmax(-1).unsqueeze(-1).unbind(2)
    )
    key, strength, add, write_gate, old_gate = sam.fields(rest, layout.access)

    recycled = one_hot(stamps.argsort(dim=1)[:, :heads], slots).to(memory.dtype)
    writing = write_gate * (old_gate * weights + (1 - old_gate) * recycled)
    new = memory * (1 - recycled.sum(1)).unsqueeze(-1)
    for head in range(heads):
        new = new + writing[:, head, :, None] * add[:, head, None, :]

    links = linked(writing.detach().sum(1), state, layout.links)
    content = sam.sparse_softmax(sam.cosine(key, new), strength, layout.sparsity)
    forward = keep_best(weights @ links[0], layout.sparsity)
    backward = keep_best(weights @ links[1], layout.sparsity)
    reading = backward_mode * backward + content_mode * content + forward_mode * forward
    reads = torch.einsum("bhn,bnw->bhw", reading, new).flatten(1)

    accessed = (writing + reading).sum(1) > DELTA
    now = time * slots + torch.arange(slots, device=memory.device)
    new_state = NaiveState(new, reading, torch.where(accessed, now, stamps), time, *links)
    if valid is not None:
        reads = torch.where(valid.bool()[:, None], reads, torch.zeros_like(reads))
        new_state = hold(valid.bool(), new_state, state)
    return reads, new_state._replace(time=time + 1)


def hold(real: Tensor, new: NaiveState, old: NaiveState) -> NaiveState:
    """``new`` where ``real[B]``, else ``old``."""

    def choose(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(real.view(-1, *(1,) * (one.dim() - 1)), one, other)

    return NaiveState(
        choose(new.memory, old.memory),
        choose(new.weights, old.weights),
        choose(new.stamps, old.stamps),
        new.time,
        choose(new.next, old.next),
        choose(new.prev, old.prev),
        choose(new.last, old.last),
    )


@torch.no_grad()
def linked(writing: Tensor, state: NaiveState, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The links after a write by ``writing[B, N]``, the heads' sum: next, prev and last.

    Where heads together write more than 1 to memory, their weights are scaled down to 1: the links of a row
    stay shares of it, as they are with the paper's one write head.
    """
    writing = writing / writing.sum(1, keepdim=True).clamp(min=1)
    w, p = writing.unsqueeze(2), state.last.unsqueeze(2)  # [B, N, 1]
    off_diagonal = 1 - torch.eye(writing.shape[1], dtype=writing.dtype, device=writing.device)
    prev = (1 - w) * state.prev + w * p.transpose(1, 2)
    prev = torch.where(w > 0, keep_best(prev * off_diagonal, count), state.prev)
    after = (1 - w.transpose(1, 2)) * state.next + w.transpose(1, 2) * p
    # Links to a row are reached through the links back from it.
    reached = ((state.prev > 0) & (w > 0)).any(1) | (state.last > 0)
    after = torch.where(reached.unsqueeze(2), keep_best(after * off_diagonal, count), state.next)
    last = keep_best((1 - writing.sum(1, keepdim=True)) * state.last + writing, count)
    return after, prev, last


def keep_best(weights: Tensor, count: int) -> Tensor:
    """The ``count`` largest of the last dimension, zero elsewhere; of equal ones the lower row wins."""
    best = weights.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return torch.zeros_like(weights).scatter(-1, best, weights.gather(-1, best))
