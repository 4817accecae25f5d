"""The definition: a weighted sum of rows of a table, and what a step of Adam does to them."""

from __future__ import annotations

import torch
from torch import Tensor


def bag(values: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """``out[t] = sum_k weights[t, k] values[rows[t, k]]``.

    Args:
        values: ``[N, D]``.
        rows: int64 ``[T, K]``.
        weights: ``[T, K]``.

    Returns:
        ``[T, D]``.
    """
    return torch.einsum("tk,tkd->td", weights, values[rows])


def adam(
    values: Tensor,
    moments: tuple[Tensor, Tensor],
    grad: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One step of Adam (Kingma and Ba 2014, algorithm 1) on all of a table, in place.

    Args:
        values: ``[N, D]``.
        moments: first and second, ``[N, D]`` each.
        grad: ``[N, D]``; zero in rows that were not read.
        step: 1 for the first.
        lr: learning rate.
        betas: decays of the moments.
        eps: added to the root.
    """
    first, second = moments
    first.mul_(betas[0]).add_((1 - betas[0]) * grad)
    second.mul_(betas[1]).add_((1 - betas[1]) * grad * grad)
    mean = first / (1 - betas[0] ** step)
    root = (second / (1 - betas[1] ** step)).sqrt()
    values.sub_(lr * mean / (root + eps))
