"""What a Differentiable Neural Computer's memory carries from step to step, and what it is told."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# Usage is brought this far from 0, so that products of usages have gradients.
USAGE_FLOOR = 1e-6
# What is added to weights of links before they are raised to a power.
LINK_FLOOR = 1e-6
# The least part of a component that a mask lets through: without, training is not stable
# (Csordas and Schmidhuber 2019).
MASK_FLOOR = 0.1


class DNCState(NamedTuple):
    """What the last step left.

    Attributes:
        memory: ``[B, N, W]``.
        usage: ``[B, N]``, in [0, 1].
        reading: weights of the read heads, ``[B, R, N]``; each sums to at most 1.
        writing: weights of the write head, ``[B, N]``; they sum to at most 1.
        precedence: how much each row was the last one written, ``[B, N]``; sums to at most 1.
        links: ``[B, N, N]``; entry i, j: how much row i was written just after row j. Its diagonal is zero;
            rows and columns sum to at most 1.

    Without links the last two are empty: ``[B, 0]`` and ``[B, 0, 0]``.
    """

    memory: Tensor
    usage: Tensor
    reading: Tensor
    writing: Tensor
    precedence: Tensor
    links: Tensor


class DNCInterface(NamedTuple):
    """What the controller says in one step, after its activations; what is switched off is None."""

    read_key: Tensor  # [B, R, W]
    read_strength: Tensor  # [B, R], >= 1
    write_key: Tensor  # [B, 1, W]
    write_strength: Tensor  # [B, 1], >= 1
    erase: Tensor  # [B, 1, W], in (0, 1)
    add: Tensor  # [B, 1, W]
    free: Tensor  # [B, R], in (0, 1)
    allocation_gate: Tensor  # [B, 1], in (0, 1)
    write_gate: Tensor  # [B, 1], in (0, 1)
    modes: Tensor | None  # [B, R, 3]: backward, content, forward; sums to 1
    read_mask: Tensor | None  # [B, R, W], in (0, 1)
    write_mask: Tensor | None  # [B, 1, W], in (0, 1)
    sharpness: Tensor | None  # [B, R, 2]: of backward and forward, >= 1
