"""One step of a long short-term memory as one node, with its backward pass written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mannlab.kernels.deferred import Shared
from mannlab.kernels.nodes import differentiable_once


class _Step(torch.autograd.Function):
    """Gates in the order of torch: input, forget, candidate, output (Hochreiter and Schmidhuber 1997)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, token: Tensor, shared: Shared
    ) -> tuple[Tensor, Tensor]:
        from_x, bias_x, from_h, bias_h = shared.weights
        assert from_x is not None and from_h is not None and bias_x is not None and bias_h is not None  # noqa: PT018
        gates = torch.addmm(bias_x, x, from_x.t()).add_(bias_h).addmm_(h, from_h.t())
        i, f, g, o = gates.chunk(4, 1)
        g_tanh = g.tanh()
        gates.sigmoid_()
        g.copy_(g_tanh)
        new_c = torch.addcmul(f * c, i, g)
        squashed = new_c.tanh()
        ctx.tape, ctx.gates, ctx.squashed = shared.tape, gates, squashed
        # As saved tensors, so that writing to them before the backward pass is noticed.
        ctx.save_for_backward(x, h, c, from_x, from_h)
        return o * squashed, new_c

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, on_h: Tensor, on_c: Tensor) -> Any:
        x, h, c, from_x, from_h = ctx.saved_tensors
        gates = ctx.gates
        i, f, g, o = gates.chunk(4, 1)
        through = on_h * o
        on_c = on_c + through - through * ctx.squashed.square()
        # sigmoid' = s - s^2; the candidate's tanh' = 1 - g^2.
        slopes = torch.addcmul(gates, gates, gates, value=-1)
        slope_i, slope_f, slope_g, slope_o = slopes.chunk(4, 1)
        torch.mul(g, g, out=slope_g).neg_().add_(1)
        slope_i.mul_(on_c * g)
        slope_f.mul_(on_c * c)
        slope_g.mul_(on_c * i)
        slope_o.mul_(on_h * ctx.squashed)
        ctx.tape.add(x, h, slopes)
        need_x, need_h, need_c = ctx.needs_input_grad[:3]
        return (
            slopes @ from_x if need_x else None,
            slopes @ from_h if need_h else None,
            on_c * f if need_c else None,
            None,
            None,
        )


def step(x: Tensor, h: Tensor, c: Tensor, shared: Shared) -> tuple[Tensor, Tensor]:
    """The next ``h[B, H]`` and ``c[B, H]``.

    Args:
        x: ``[B, I]``, what comes in.
        h: ``[B, H]``.
        c: ``[B, H]``.
        shared: weights ``[4 H, I]`` and biases ``[4 H]`` of x, then ``[4 H, H]`` and ``[4 H]`` of h.
    """
    new_h, new_c = _Step.apply(x, h, c, shared.token, shared)
    return new_h, new_c
