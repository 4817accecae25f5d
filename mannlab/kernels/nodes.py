"""What hand-written autograd nodes share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`torch.autograd.function.once_differentiable`, at no cost where nobody wants to go twice.

    That one switches gradients off and on again, which takes as long as a small node itself; in an
    ordinary backward pass they are off already.
    """
    guarded = once_differentiable(backward)

    @wraps(backward)
    def run(ctx: Any, *grads: Any) -> Any:
        return guarded(ctx, *grads) if torch.is_grad_enabled() else backward(ctx, *grads)

    return run
