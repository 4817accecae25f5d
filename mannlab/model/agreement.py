"""Whether a recording does what it was recorded from: looked at once, where it is to be relied on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

# Of the largest number: kernels may sum in another order, and mixed precision rounds what they sum.
TOLERANCE = 0.02


class Recorded(Protocol):
    """See :class:`mannlab.kernels.recording.Recording`."""

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]: ...

    def backward(self, ons: Sequence[Tensor], again: bool) -> list[Tensor | None]: ...


def agrees(
    recorded: Recorded,
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> bool:
    """Whether a replay gives what ``function(*inputs, *weights)`` gives, and its gradients. Waits for it."""
    parts = [part.detach().requires_grad_(part.requires_grad) for part in (*inputs, *weights)]
    outputs = list(function(*parts))
    with torch.no_grad():
        same = all(map(_close, recorded.forward(inputs), outputs))
    made = [out for out in outputs if out.requires_grad]
    wanted = [part for part in parts if part.requires_grad]
    if not (same and made and wanted):
        return same
    ons = [torch.ones_like(out) for out in outputs]
    given = [on for out, on in zip(outputs, ons, strict=True) if out.requires_grad]
    expected = torch.autograd.grad(made, wanted, given, allow_unused=True)
    with torch.no_grad():
        replayed = recorded.backward(ons, False)
    found = [grad for part, grad in zip(parts, replayed, strict=True) if part.requires_grad]
    return all(map(_close, found, expected))


def _close(found: Tensor | None, wanted: Tensor | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if not wanted.is_floating_point():
        return torch.equal(found, wanted)
    wanted = wanted.detach()
    # What is not a number here is so in both.
    scale = wanted.nan_to_num().abs().amax() if wanted.numel() else wanted.new_zeros(())
    return torch.allclose(found, wanted, rtol=0.0, atol=TOLERANCE * float(scale) + 1e-6, equal_nan=True)
