"""A step of sparse memory as one node of the autograd graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mannlab.kernels.nodes import differentiable_once
from mannlab.kernels.sam.session import Session


class _Step(torch.autograd.Function):
    """The weights that a step hands to the next one chain the nodes, so backward meets them last first."""

    @staticmethod
    def forward(
        ctx: Any, interface: Tensor, before: Tensor, session: Session, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.session, ctx.time = session, session.time
        ctx.set_materialize_grads(False)
        return session.forward(interface, valid, keep=True)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_reads: Tensor | None, grad_weights: Tensor | None) -> Any:
        grad_interface, grad_before = ctx.session.backward(ctx.time, grad_reads, grad_weights)
        return grad_interface, grad_before, None, None


class _Start(torch.autograd.Function):
    """Ties the first step to the parameters of the initial memory; reached when all steps are undone."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, weights: Tensor, session: Session) -> Tensor:
        ctx.session = session
        ctx.initial = initial.shape
        return weights

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_weights: Tensor) -> Any:
        return ctx.session.initial_gradient(), None, None


def step(session: Session, interface: Tensor, before: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Make a session's next step.

    Args:
        session: what is stepped.
        interface: ``[B, I]``.
        before: ``[B, H, K]``, weights of the read before, as the last step returned them.
        valid: ``[B]`` or None.

    Returns:
        ``reads[B, H * W]`` and the new weights ``[B, H, K]``.
    """
    if torch.is_grad_enabled() and (interface.requires_grad or before.requires_grad):
        reads, weights = _Step.apply(interface, before, session, valid)
        return reads, weights
    return session.forward(interface, valid, keep=False)


def start(session: Session, initial: Tensor | None, weights: Tensor) -> Tensor:
    """The weights before the first step; they carry the gradient of ``initial[N, W]``, if it wants one."""
    if initial is not None and initial.requires_grad and torch.is_grad_enabled():
        session.hold_for_start = True
        started: Tensor = _Start.apply(initial, weights, session)
        return started
    return weights
