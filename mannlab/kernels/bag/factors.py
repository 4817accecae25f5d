"""The gradient of a large table, as it is before it is multiplied out.

A step reads a few rows of a table, and row ``rows[e]`` gets ``weights[e] * grads[sources[e]]``. Multiplied
out that is a vector for every row that was read, more than the rest of the step together; as factors it is
what the step has already. The optimizer multiplies row by row, where the result is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """Attributes: ``rows[E]`` and ``sources[E]``, int64; ``weights[E]``; ``grads[S, D]``."""

    rows: Tensor
    weights: Tensor
    sources: Tensor
    grads: Tensor


class Reverse(NamedTuple):
    """Which entries each distinct row has.

    Attributes:
        ids: the distinct rows, ascending, int64 ``[U]``.
        order: entries by row, int64 ``[E]``.
        starts: row u has the entries ``order[starts[u]:starts[u + 1]]``; int64 ``[U + 1]``.
    """

    ids: Tensor
    order: Tensor
    starts: Tensor


def of_bags(rows: Tensor, weights: Tensor, grads: Tensor) -> Factors:
    """Factors of ``T`` bags: ``rows[T, K]``, ``weights[T, K]``, ``grads[T, D]``."""
    bags, count = rows.shape
    sources = torch.arange(bags, device=rows.device).repeat_interleave(count)
    return Factors(rows.flatten(), weights.flatten(), sources, grads)


def join(parts: Sequence[Factors]) -> Factors:
    """The sum of several gradients of one table."""
    if len(parts) == 1:
        return parts[0]
    sources, before = [], 0
    for part in parts:
        sources.append(part.sources + before)
        before += len(part.grads)
    rows, weights = torch.cat([part.rows for part in parts]), torch.cat([part.weights for part in parts])
    return Factors(rows, weights, torch.cat(sources), torch.cat([part.grads for part in parts]))


def reverse(rows: Tensor) -> Reverse:
    """Find the distinct rows, and where each occurs: in the order in which it does."""
    ordered, order = torch.sort(rows, stable=True)
    ids, counts = torch.unique_consecutive(ordered, return_counts=True)
    return Reverse(ids, order, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
