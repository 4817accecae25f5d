"""Nodes that can be differentiated once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mannlab.kernels.nodes import differentiable_once


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def test_once_is_as_usual() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    _Square.apply(x).backward()
    assert x.grad is not None
    assert x.grad.item() == 6


def test_twice_is_refused_and_not_wrong() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    (slope,) = torch.autograd.grad(_Square.apply(x) ** 2, x, create_graph=True)
    assert slope.item() == 108
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.backward()
