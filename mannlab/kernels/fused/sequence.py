"""The node of a whole sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mannlab.kernels.fused.cells import ControllerCell, MemoryCell, Plan
from mannlab.kernels.nodes import differentiable_once

Outputs = tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]


def run(
    controller: ControllerCell,
    memory: MemoryCell,
    interface: nn.Linear,
    x: Tensor,
    reads: Tensor,
    valid: Tensor | None,
) -> Outputs:
    """All steps of a sequence.

    Args:
        controller: with its initial state and weights.
        memory: with its initial state.
        interface: from what the controller says to what the memory hears.
        x: ``[B, T, E]``.
        reads: before the first step, ``[B, R]``.
        valid: ``[B, T]`` or None.

    Returns:
        ``h[B, T, C]``, ``reads[B, T, R]``, and the last states of controller and memory.
    """
    parts = (
        x,
        reads,
        interface.weight,
        interface.bias,
        *controller.state,
        *memory.state,
        *controller.weights,
    )
    keep = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
    real = np.ones((x.shape[1], x.shape[0]), np.bool_)
    if valid is not None:
        real = np.ascontiguousarray(valid.bool().t().numpy())
    plan = Plan(x.shape[1], x.shape[0], keep, x.dtype, real)
    hidden, read_out, *last = _Sequence.apply(plan, controller, memory, *parts)
    own = len(controller.state)
    return hidden, read_out, tuple(last[:own]), tuple(last[own:])


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        controller: ControllerCell,
        memory: MemoryCell,
        x: Tensor,
        first_reads: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *rest: Tensor,
    ) -> Any:
        own, its = len(controller.state), len(memory.state)
        x = x.transpose(0, 1).contiguous()
        hidden = x.new_empty(plan.steps, plan.batch, weight.shape[1])
        reads = x.new_empty(plan.steps + 1, plan.batch, first_reads.shape[1])
        reads[0] = first_reads
        controller.begin(plan, x, rest[:own], rest[own + its :], hidden)
        memory.begin(plan, rest[own : own + its], reads)
        across = weight.t()
        for t, (said, given) in enumerate(zip(hidden.unbind(0), reads.unbind(0), strict=False)):
            controller.forward(t, given)
            if bias is None:
                torch.mm(said, across, out=memory.said(t))
            else:
                torch.addmm(bias, said, across, out=memory.said(t))
            memory.forward(t)
        ctx.plan, ctx.controller, ctx.memory = plan, controller, memory
        # As saved tensors, so that writing to what was given out, or to weights, is noticed.
        ctx.save_for_backward(hidden, reads, weight, *rest[own + its :])
        ctx.set_materialize_grads(False)
        return hidden.transpose(0, 1), reads[1:].transpose(0, 1), *controller.last(), *memory.last()

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, on_h: Tensor | None, on_r: Tensor | None, *on_last: Tensor | None) -> Any:
        hidden, reads, weight, *_ = ctx.saved_tensors
        plan, controller, memory = ctx.plan, ctx.controller, ctx.memory
        own, its = len(controller.state), len(memory.state)
        carried, remembered = (
            controller.begin_backward(on_last[:own]),
            memory.begin_backward(on_last[own:]),
        )
        on_said = weight.new_empty(plan.steps, plan.batch, weight.shape[0])
        on_hidden = torch.empty_like(hidden[0])
        on_reads = torch.zeros_like(reads[0])
        hs: Any = [None] * plan.steps if on_h is None else on_h.transpose(0, 1).contiguous().unbind(0)
        rs: Any = [None] * plan.steps if on_r is None else on_r.transpose(0, 1).unbind(0)
        heard = on_said.unbind(0)
        for t in range(plan.steps - 1, -1, -1):
            if rs[t] is not None:
                on_reads += rs[t]
            memory.backward(remembered, t, on_reads, heard[t])
            if hs[t] is None:
                torch.mm(heard[t], weight, out=on_hidden)
            else:
                torch.addmm(hs[t], heard[t], weight, out=on_hidden)
            controller.backward(carried, t, on_hidden, on_reads)
        needs = ctx.needs_input_grad[3:]
        flat = on_said.flatten(0, 1)
        on_weight = flat.t() @ hidden.flatten(0, 1) if needs[2] else None
        on_bias = flat.sum(0) if needs[3] else None
        rest = needs[4:]
        asked = needs[0], rest[:own], rest[own + its :]
        on_x, on_state, on_weights = controller.end_backward(carried, reads[:-1], asked)
        on_its = memory.end_backward(remembered, rest[own : own + its])
        if on_x is not None:
            on_x = on_x.transpose(0, 1)
        first = on_reads if needs[1] else None
        return None, None, None, on_x, first, on_weight, on_bias, *on_state, *on_its, *on_weights
