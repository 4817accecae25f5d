"""The definition of a Differentiable Neural Computer's step, in loops.

Graves et al. 2016 (Nature 538, 471-476), Methods; masks, de-allocation and sharpness are those of Csordas and
Schmidhuber 2019 (arXiv 1904.10278). Slow on purpose: one batch row, one head, one slot at a time, so that
each line is one equation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mannlab.kernels.dnc.layout import LINK_FLOOR, USAGE_FLOOR, DNCInterface, DNCState
from mannlab.kernels.ntm.naive import cosine


def content(memory: Tensor, key: Tensor, strength: Tensor, mask: Tensor | None, epsilon: float) -> Tensor:
    """Softmax over rows of ``strength`` times the cosine, both sides masked; ``memory[N, W]`` to ``[N]``."""
    if mask is not None:
        key = key * mask
    scores = []
    for row in memory:
        scores.append(strength * cosine(key, row if mask is None else row * mask, epsilon))
    powers = torch.stack(scores).exp()
    return powers / powers.sum()


def allocation(usage: Tensor) -> Tensor:
    """Weights ``[N]`` on rows that are not in use: the free list, the row used least first."""
    usage = USAGE_FLOOR + (1 - USAGE_FLOOR) * usage
    free_list = sorted(range(len(usage)), key=lambda row: (float(usage[row].detach()), row))
    weights: list[Tensor] = [usage[0]] * len(usage)
    in_use_before = torch.ones_like(usage[0])
    for row in free_list:
        weights[row] = (1 - usage[row]) * in_use_before
        in_use_before = in_use_before * usage[row]
    return torch.stack(weights)


def relinked(links: Tensor, precedence: Tensor, writing: Tensor) -> tuple[Tensor, Tensor]:
    """Links ``[N, N]`` and precedence ``[N]`` after a write by ``writing[N]``."""
    slots = len(writing)
    rows = []
    for i in range(slots):
        row = [torch.zeros_like(writing[0])] * slots
        for j in range(slots):
            if i != j:
                row[j] = (1 - writing[i] - writing[j]) * links[i, j] + writing[i] * precedence[j]
        rows.append(torch.stack(row))
    return torch.stack(rows), (1 - writing.sum()) * precedence + writing


def sharpened(weights: Tensor, exponent: Tensor) -> Tensor:
    """``weights[N]`` to a power, renormalised."""
    powers = (weights + LINK_FLOOR) ** exponent
    return powers / powers.sum()


def naive_step(
    state: DNCState, said: DNCInterface, deallocation: bool, epsilon: float
) -> tuple[Tensor, DNCState]:
    """One step.

    Args:
        state: of t - 1.
        said: at t; what is None in it is switched off.
        deallocation: whether rows that are freed are erased.
        epsilon: see :func:`mannlab.kernels.ntm.naive.cosine`.

    Returns:
        Reads ``[B, R, W]`` and the state of t.
    """
    made = []
    for b in range(len(state.memory)):
        one = DNCState(*(part[b] for part in state))
        told = DNCInterface(*(None if part is None else part[b] for part in said))  # type: ignore[arg-type]
        made.append(_one(one, told, deallocation, epsilon))
    reads, *parts = (torch.stack(part) for part in zip(*made, strict=True))
    return reads, DNCState(*parts)


def _one(state: DNCState, said: DNCInterface, deallocation: bool, epsilon: float) -> tuple[Tensor, ...]:
    heads, slots = state.reading.shape
    retained = torch.ones_like(state.usage)
    for h in range(heads):
        retained = retained * (1 - said.free[h] * state.reading[h])
    usage = (state.usage + state.writing - state.usage * state.writing) * retained

    mask = None if said.write_mask is None else said.write_mask[0]
    found = content(state.memory, said.write_key[0], said.write_strength[0], mask, epsilon)
    gate = said.allocation_gate[0]
    writing = said.write_gate[0] * (gate * allocation(usage) + (1 - gate) * found)

    rows = []
    for i in range(slots):
        row = state.memory[i] * retained[i] if deallocation else state.memory[i]
        rows.append(row * (1 - writing[i] * said.erase[0]) + writing[i] * said.add[0])
    memory = torch.stack(rows)

    links, precedence = state.links, state.precedence
    if said.modes is not None:
        links, precedence = relinked(links, precedence, writing)
    reading = []
    for h in range(heads):
        mask = None if said.read_mask is None else said.read_mask[h]
        weights = content(memory, said.read_key[h], said.read_strength[h], mask, epsilon)
        if said.modes is not None:
            backward, forward = links.t() @ state.reading[h], links @ state.reading[h]
            if said.sharpness is not None:
                backward = sharpened(backward, said.sharpness[h, 0])
                forward = sharpened(forward, said.sharpness[h, 1])
            mode = said.modes[h]
            weights = mode[0] * backward + mode[1] * weights + mode[2] * forward
        reading.append(weights)
    reads = torch.stack([(weights.unsqueeze(1) * memory).sum(0) for weights in reading])
    return reads, memory, usage, torch.stack(reading), writing, precedence, links
