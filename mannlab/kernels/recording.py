"""A function and its backward pass recorded as CUDA graphs: launched as one each, without Python.

:func:`torch.cuda.make_graphed_callables` does nearly this. But its gradients lie in buffers that the next
replay overwrites, so that adding them up over batches counts the last one twice; while it captures, no other
thread may allocate, as those that prepare data do; and it does not foresee a second backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Sequence[Tensor]]

# So that kernels are compiled and libraries have their workspaces before anything is recorded.
WARM_UPS = 3
# Calls of other threads, such as one that pins memory, would end a capture that forbids them everywhere.
MODE: Any = {"capture_error_mode": "thread_local"}


class Recording:
    """``function`` at the shapes of ``inputs``, with a backward pass if gradients are enabled now.

    Args:
        function: of ``(*inputs, *weights)`` and of what stays where it lies, on one CUDA device, without
            waiting for it.
        inputs: examples; what they hold is copied.
        weights: whose gradients are wanted beside those of ``inputs``; used where they lie.

    Raises:
        RuntimeError: ``function`` cannot be captured.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        grad = torch.is_grad_enabled()
        # Buffers outlive an evaluation in inference mode, whose tensors could not be written to after it.
        with torch.inference_mode(False), torch.set_grad_enabled(grad), torch.cuda.device(inputs[0].device):
            self._inputs = [_like(part, grad) for part in inputs]
            # In the same place, but with a node for their gradient that no other graph or wrapper (DDP) has:
            # one that was made on another stream would pull that stream into the capture.
            own = [weight.detach().requires_grad_(grad and weight.requires_grad) for weight in weights]
            parts = [*self._inputs, *own]
            self._needed = [part.requires_grad for part in parts]
            self._record(function, parts, [part for part in parts if part.requires_grad])

    def _record(self, function: Function, parts: list[Tensor], wanted: list[Tensor]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                made = [out for out in function(*parts) if out.requires_grad]
                if made and wanted:
                    ons = [torch.zeros_like(out) for out in made]
                    torch.autograd.grad(made, wanted, ons, allow_unused=True)
                del made
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._forward = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._forward, stream=stream, **MODE):
            outputs = list(function(*parts))
        self._outputs = [out.detach() for out in outputs]
        self._ons = [torch.zeros_like(out) if out.requires_grad else None for out in outputs]
        self._grads: list[Tensor | None] = [None] * len(wanted)
        if wanted and any(on is not None for on in self._ons):
            self._backward = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._backward, stream=stream, pool=self._forward.pool(), **MODE):
                self._grads = list(
                    torch.autograd.grad(
                        [out for out in outputs if out.requires_grad],
                        wanted,
                        [on for on in self._ons if on is not None],
                        allow_unused=True,
                    )
                )

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs, in tensors that the next call writes to. To be called without gradients."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._forward.replay()
        return self._outputs

    def backward(self, ons: Sequence[Tensor], again: bool) -> list[Tensor | None]:
        """Gradients of inputs and weights, of the last forward call; also good until the next call.

        Args:
            ons: of the outputs.
            again: this is not the first time since; the first leaves nothing of the history.
        """
        if again:
            self._forward.replay()
        for own, given in zip(self._ons, ons, strict=True):
            if own is not None:
                own.copy_(given)
        self._backward.replay()
        found = iter(self._grads)
        return [next(found) if needed else None for needed in self._needed]


def _like(part: Tensor, grad: bool) -> Tensor:
    with torch.no_grad():
        own = torch.empty_like(part, memory_format=torch.contiguous_format).copy_(part)
    return own.requires_grad_(grad and part.requires_grad)
