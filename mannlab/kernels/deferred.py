"""Weights used at every step of a sequence, whose gradient is made once for all steps.

Autograd makes and adds up a gradient as large as the weights at every step. Here each step's backward pass
keeps only what came in and the gradient of what went out; one matrix product over all steps follows, when
the last of them is done. That is less work, fewer nodes and less memory: what it costs to drive a memory
step by step is mostly this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mannlab.kernels.nodes import differentiable_once


class Tape:
    """What the backward pass of each step left for the gradient of the weights."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, tuple[Tensor, ...]]] = []

    def add(self, *what: Tensor) -> None:
        """Note a step: what came in, and last the gradient of what went out."""
        # Marked by pass: of several over one graph, each may stop before it reaches the weights.
        self._steps.append((torch._C._current_graph_task_id(), tuple(part.detach() for part in what)))

    def collect(self) -> list[Tensor]:
        """What the steps of this pass left, each put together over the steps: ``[T * B, ...]``."""
        task = torch._C._current_graph_task_id()
        mine = [what for number, what in self._steps if number == task]
        self._steps.clear()
        return [torch.cat(parts) for parts in zip(*mine, strict=True)]


class Shared:
    """Some weights, for one pass over a sequence.

    Args:
        weights: weight and bias (or None) of each input, in turn.

    Attributes:
        token: an input of every step's node, so that the weights' node comes last in the backward pass.
        tape: what the steps leave for it.
    """

    def __init__(self, *weights: Tensor | None) -> None:
        self.weights, self.tape = weights, Tape()
        # The node knows the tape and not this object, which holds the node: that would be a cycle.
        self.token: Tensor = _Weights.apply(self.tape, *weights)


class _Weights(torch.autograd.Function):
    """Any number of (input, gradient of output) pairs: weight and bias of each, in turn."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, *weights: Tensor | None) -> Tensor:
        ctx.tape = tape
        first = weights[0]
        assert first is not None
        return first.new_zeros(())

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> Any:
        found = ctx.tape.collect()
        grads: list[Tensor | None] = []
        if not found:
            return (None,) * len(ctx.needs_input_grad)
        *inputs, on_output = found
        total: Tensor | None = None
        for n, wanted in enumerate(ctx.needs_input_grad[1:]):
            if not wanted:
                grads.append(None)
            elif n % 2 == 0:
                grads.append(on_output.t() @ inputs[n // 2])
            else:
                total = on_output.sum(0) if total is None else total
                grads.append(total)
        return (None, *grads)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, shared: Shared) -> Tensor:
        weight, bias = shared.weights
        assert weight is not None
        ctx.tape = shared.tape
        # As saved tensors, so that writing to them before the backward pass is noticed.
        ctx.save_for_backward(x, weight)
        return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        ctx.tape.add(x, grad)
        return (grad @ weight if ctx.needs_input_grad[0] else None), None, None


def pays(*tensors: Tensor) -> bool:
    """Whether there is a gradient to make, on a device where small operations are what costs."""
    return (
        torch.is_grad_enabled()
        and tensors[0].device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and any(tensor.requires_grad for tensor in tensors)
    )


def stepper(layer: Any) -> Any:
    """A function that does what ``layer`` does, for every step of one sequence."""
    if not isinstance(layer, nn.Linear) or not pays(layer.weight):
        return layer
    shared = Shared(layer.weight, layer.bias)
    return lambda x: _Linear.apply(x, shared.token, shared)
