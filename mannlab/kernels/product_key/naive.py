"""The definition: compare a query with every one of the n^2 keys."""

from __future__ import annotations

import torch
from torch import Tensor


def search(queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best keys of each query, best first (Lample et al. 2019, section 3.1).

    Key ``i * n + j`` is half-key i of the first table followed by half-key j of the second.

    Args:
        queries: ``[T, H, 2, d]``, both halves of every head's query.
        keys: ``[2, H, n, d]``, both tables of every head; or ``[2, 1, n, d]``, shared by the heads.
        count: k.

    Returns:
        rows and scores, ``[T, H, k]``.
    """
    halves = torch.einsum("thcd,chnd->cthn", queries, keys.expand(-1, queries.shape[1], -1, -1))
    everything = (halves[0].unsqueeze(-1) + halves[1].unsqueeze(-2)).flatten(2)
    scores, rows = everything.topk(count, dim=-1)
    return rows, scores
