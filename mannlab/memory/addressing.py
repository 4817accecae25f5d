"""The mathematics of addressing, as pure functions.

Shapes: ``B`` batch, ``H`` heads, ``N`` slots, ``W`` word width, ``S`` allowed shifts.
Equation numbers are those of Graves, Wayne and Danihelka 2014, "Neural Turing Machines"
(arXiv 1410.5401), unless another source is named.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mannlab.kernels.dnc.layout import USAGE_FLOOR
from mannlab.kernels.ntm.constants import NORM_EPSILON, SMALLEST_WEIGHT


def cosine_similarity(keys: Tensor, memory: Tensor) -> Tensor:
    """Cosine of every key with every row (eq. 6): ``keys[B, H, W]``, ``memory[B, N, W]`` to ``[B, H, N]``."""
    key_norm = (keys.square().sum(-1, keepdim=True) + NORM_EPSILON).sqrt()
    row_norm = (memory.square().sum(-1) + NORM_EPSILON).sqrt()
    products = torch.matmul(keys / key_norm, memory.transpose(-1, -2))
    return products / row_norm.unsqueeze(-2)


def content_weights(keys: Tensor, memory: Tensor, strength: Tensor) -> Tensor:
    """Softmax of strength times cosine (eq. 5); ``strength[B, H]`` > 0. Returns ``[B, H, N]``."""
    return torch.softmax(cosine_similarity(keys, memory) * strength.unsqueeze(-1), dim=-1)


def masked_similarity(keys: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """Cosine of keys and rows after both are multiplied by a mask, one of each head.

    Csordas and Schmidhuber 2019 (arXiv 1904.10278).

    Args:
        keys: ``[B, H, W]``.
        memory: ``[B, N, W]``.
        mask: ``[B, H, W]``.

    Returns:
        ``[B, H, N]``.
    """
    masked, squares = keys * mask, mask.square()
    key_norm = (masked.square().sum(-1, keepdim=True) + NORM_EPSILON).sqrt()
    row_norm = (torch.matmul(squares, memory.square().transpose(-1, -2)) + NORM_EPSILON).sqrt()
    return torch.matmul(masked * mask / key_norm, memory.transpose(-1, -2)) / row_norm


def oneplus(x: Tensor) -> Tensor:
    """``1 + log(1 + exp(x))``, at least 1 (Graves et al. 2016, Nature 538)."""
    return 1 + softplus(x)


def allocation(usage: Tensor) -> Tensor:
    """Weights on rows that are not in use (Graves et al. 2016, Nature 538, Methods: dynamic allocation).

    Rows are sorted by usage, of equal ones the lower first; each gets the part that is free of what those
    before it left. Gradients go through the usages, as if the order could not change. Usage is brought
    1e-6 away from 0, where products of usages would have no gradient.

    Args:
        usage: ``[B, N]`` in [0, 1].

    Returns:
        ``[B, N]``; the sum is 1 less the product of all usages.
    """
    ordered, order = (USAGE_FLOOR + (1 - USAGE_FLOOR) * usage).sort(dim=-1, stable=True)
    # Not torch's running product, whose backward pass waits for the device.
    left = torch.cat([torch.ones_like(ordered[:, :1]), ordered[:, :-1].log().cumsum(-1).exp()], dim=-1)
    return torch.zeros_like(usage).scatter(-1, order, (1 - ordered) * left)


def interpolate(content: Tensor, previous: Tensor, gate: Tensor) -> Tensor:
    """``gate`` parts of content and the rest of the previous weights (eq. 7); ``gate[B, H]`` in [0, 1]."""
    gate = gate.unsqueeze(-1)
    return gate * content + (1 - gate) * previous


def circular_shift(weights: Tensor, shift: Tensor) -> Tensor:
    """Circular convolution with a distribution over shifts (eq. 8).

    Args:
        weights: ``[B, H, N]``.
        shift: ``[B, H, S]``, S odd; entry ``j`` is the probability of moving by ``j - S // 2`` slots.
    """
    reach = shift.shape[-1] // 2
    if reach == 0:
        return weights
    wrapped = torch.cat([weights[..., -reach:], weights, weights[..., :reach]], dim=-1)
    windows = wrapped.unfold(-1, shift.shape[-1], 1)  # [B, H, N, S]; window i holds w[i-reach .. i+reach]
    return torch.matmul(windows, shift.flip(-1).unsqueeze(-1)).squeeze(-1)


def sharpen(weights: Tensor, exponent: Tensor) -> Tensor:
    """Weights to the power ``exponent[B, H]`` >= 1, renormalised (eq. 9).

    Computed as a softmax of logarithms, which no exponent can bring to 0 / 0.
    """
    return torch.softmax(weights.clamp_min(SMALLEST_WEIGHT).log() * exponent.unsqueeze(-1), dim=-1)


def read(memory: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows (eq. 2): ``memory[B, N, W]``, ``weights[B, H, N]`` to ``[B, H, W]``."""
    return torch.matmul(weights, memory)


def erase_add(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """Erase, then add, by every write head at once (eqs. 3 and 4).

    Args:
        memory: ``[B, N, W]``.
        weights: ``[B, H, N]``.
        erase: ``[B, H, W]`` in [0, 1].
        add: ``[B, H, W]``.
    """
    if weights.shape[1] == 1:
        kept = 1 - weights.transpose(-1, -2) * erase
        return torch.addcmul(weights.transpose(-1, -2) * add, memory, kept)
    kept = memory
    for head in range(weights.shape[1]):
        kept = kept * (1 - weights[:, head].unsqueeze(-1) * erase[:, head].unsqueeze(-2))
    return torch.baddbmm(kept, weights.transpose(-1, -2), add)


def one_hot_logits(slots: int, slot: int, sharpness: float) -> Tensor:
    """Logits whose softmax is concentrated on one slot."""
    logits = torch.zeros(slots)
    logits[slot] = sharpness
    return logits


__all__ = [
    "NORM_EPSILON",
    "allocation",
    "circular_shift",
    "content_weights",
    "cosine_similarity",
    "erase_add",
    "interpolate",
    "masked_similarity",
    "one_hot_logits",
    "oneplus",
    "read",
    "sharpen",
]
