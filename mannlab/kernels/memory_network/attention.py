"""All steps of a sequence at once; ``naive.py`` says the same one slot at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hops:
    """What a hop works with; K hops, N the most slots that are seen, W width.

    Attributes:
        pairs: for each hop, which embedding of a slot is its key and which its value.
        temporal: ``[M, N, W]``, what is added to each embedding of a slot of each age; None: nothing.
        matrices: one a hop, ``[W, W]`` each, or none.
        after: a matrix is applied to ``u + o`` (Miller et al. 2016); else to ``u`` alone.
        linear: weights are the scores themselves, without a softmax.
        rectified: how many of the first components of u pass through a ReLU after each hop.
        slots: N.
    """

    pairs: Sequence[tuple[int, int]]
    temporal: Tensor | None
    matrices: Sequence[Tensor]
    after: bool
    linear: bool
    rectified: int
    slots: int


def attend(
    query: Tensor, written: Sequence[Tensor], ages: Tensor, hops: Hops, shown: list[Tensor] | None = None
) -> Tensor:
    """What is known after the last hop (Sukhbaatar et al. 2015, eq. 1-4).

    Args:
        query: ``[B, T, W]``.
        written: the M embeddings of each slot, ``[B, L, W]`` each.
        ages: ``int64[B, T, L]``: how many slots are newer than slot l as step t sees it. Only those of
            [0, N) are seen.
        hops: see :class:`Hops`.
        shown: if given, the weights of each hop are appended, ``[B, T, L]``.

    Returns:
        ``u[B, T, W]``; that of a step that sees nothing is made of its query alone.
    """
    seen = (ages >= 0) & (ages < hops.slots)
    where = ages.clamp(0, hops.slots - 1)
    u = query
    for hop, (key, value) in enumerate(hops.pairs):
        scores = u @ written[key].transpose(1, 2)
        if hops.temporal is not None:
            scores = scores + (u @ hops.temporal[key].T).gather(2, where)
        weights = _weigh(scores, seen, hops.linear)
        if shown is not None:
            shown.append(weights)
        o = weights @ written[value]
        if hops.temporal is not None:
            by_age = weights.new_zeros(*weights.shape[:2], hops.slots).scatter_add(2, where, weights)
            o = o + by_age @ hops.temporal[value]
        u = _update(u, o, hop, hops)
    return u


def _weigh(scores: Tensor, seen: Tensor, linear: bool) -> Tensor:
    if linear:
        return torch.where(seen, scores, 0)
    # Not minus infinity: over nothing, its softmax is not a number.
    masked = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return torch.where(seen, torch.softmax(masked, dim=-1), 0)


def _update(u: Tensor, o: Tensor, hop: int, hops: Hops) -> Tensor:
    if not hops.matrices:
        u = u + o
    elif hops.after:
        u = (u + o) @ hops.matrices[hop].T
    else:
        u = u @ hops.matrices[hop].T + o
    if hops.rectified:
        u = torch.cat([torch.relu(u[..., : hops.rectified]), u[..., hops.rectified :]], dim=-1)
    return u
