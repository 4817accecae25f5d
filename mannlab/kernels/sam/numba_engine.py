"""The engine for CPUs: numpy arrays, worked on by compiled code."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mannlab.kernels.compiling import announce
from mannlab.kernels.sam import compiled
from mannlab.kernels.sam.index import with_spares
from mannlab.kernels.sam.layout import NORM_EPSILON, Cells, History, Layout
from mannlab.kernels.sam.session import Last, Search


class NumbaEngine:
    """See :class:`mannlab.kernels.sam.session.Engine`.

    Buffers are asked of the operating system as zeros, so that pages nobody touches take no memory.

    Args:
        dtype: float32 or float64.
        initial: ``[N, W]``, the initial memory; None for zeros.
        device: where reads and gradients are wanted.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        initial: Tensor | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device if device is not None and device.type != "cpu" else None
        self.dtype = np.dtype(str(dtype).removeprefix("torch."))
        self.key = self.dtype
        self.initial = np.empty((0, 0), self.dtype)
        self.initial_scale = np.empty(0, self.dtype)
        if initial is not None:
            self.initial = np.ascontiguousarray(initial.detach().numpy(), self.dtype).copy()
            self.initial_scale = np.empty(len(self.initial), self.dtype)
            compiled.scales(self.initial, self.initial_scale)
        self._announce()
        self._real: dict[int, np.ndarray] = {}

    step_function: Any = compiled.step

    def _announce(self) -> None:
        """Say why nothing happens for a while, where compiled code is not kept from an earlier run."""
        announce(self.step_function, "the sparse memory", 20)

    def starts_from(self, initial: Tensor) -> bool:
        return np.array_equal(self.initial, initial.detach().cpu().numpy())

    def cells(self, batch: int, layout: Layout) -> Cells:
        slots, width = layout.slots, layout.width
        cells = Cells(
            np.zeros((batch, slots, width), self.dtype),
            np.zeros((batch, slots), self.dtype),
            np.zeros((batch, slots + 1), np.int64),
            np.zeros((batch, slots + 1), np.int64),
            np.full(batch, len(self.initial), np.int64),
        )
        if len(self.initial):
            cells.memory[:] = self.initial
            cells.scale[:] = self.initial_scale
        return cells

    def history(self, steps: int, batch: int, layout: Layout) -> History:
        heads, sparsity = layout.heads, layout.sparsity
        return History(
            np.zeros((steps, batch, layout.interface), self.dtype),
            np.zeros((steps, batch, heads), np.int64),
            np.zeros((steps, batch, heads, sparsity), np.int64),
            np.zeros((steps, batch, heads, sparsity), self.dtype),
            np.zeros((steps, batch, heads, sparsity), self.dtype),
            np.zeros((steps, batch, layout.changed, layout.width), self.dtype),
        )

    def nothing(self, batch: int, layout: Layout) -> Last:
        shape = (batch, layout.heads, layout.sparsity)
        return Last(np.zeros(shape, np.int64), np.zeros(shape, self.dtype))

    def gradient(self, cells: Cells) -> Any:
        return np.zeros(cells.memory.shape, self.dtype)

    @cached_property
    def _no_gradient(self) -> Any:
        return np.zeros((1, 0, 0), self.dtype)

    def forward(
        self,
        s: int,
        interface: Tensor,
        valid: Tensor | None,
        last: Last,
        cells: Cells,
        history: History,
        search: Search | None = None,
    ) -> tuple[Tensor, Tensor]:
        batch = len(interface)
        said, real = self.as_numpy(interface), self.as_real(valid, batch)
        heads, width = history.rows.shape[2], cells.memory.shape[2]
        reads = np.empty((batch, heads * width), self.dtype)
        if search is None:
            compiled.step(s, said, real, last.rows, last.weights, cells, history, reads)
        else:
            compiled.begin(s, said, real, last.rows, last.weights, cells, history)
            candidates = self._candidates(s, batch, last, cells, history, search)
            compiled.finish(s, candidates, last.rows, last.weights, cells, history, reads)
        return self.as_tensor(reads), self.as_tensor(history.weights[s].copy())

    def as_numpy(self, tensor: Tensor) -> Any:
        """An array for compiled code."""
        tensor = tensor.detach()
        return (tensor if self.device is None else tensor.cpu()).contiguous().numpy()

    def as_tensor(self, array: Any) -> Tensor:
        """A tensor where it is wanted."""
        tensor = torch.from_numpy(array)
        return tensor if self.device is None else tensor.to(self.device)

    def as_real(self, valid: Tensor | None, batch: int) -> Any:
        """``bool[B]``: which sequences make this step."""
        if valid is not None:
            return self.as_numpy(valid.bool())
        real = self._real.get(batch)
        if real is None:
            real = self._real[batch] = np.ones(batch, np.bool_)
        return real

    def incoming(
        self, cells: Any, history: Any, grad_reads: Tensor | None, grad_weights: Tensor | None
    ) -> tuple[Any, Any]:
        """Gradients of reads and weights as arrays; zeros where there is none."""
        heads, width = history.rows.shape[2], cells.memory.shape[2]
        on_reads = (
            np.zeros((history.rows.shape[1], heads * width), self.dtype)
            if grad_reads is None
            else self.as_numpy(grad_reads)
        )
        on_weights = (
            np.zeros(history.rows.shape[1:], self.dtype)
            if grad_weights is None
            else self.as_numpy(grad_weights)
        )
        return on_reads, on_weights

    def _candidates(
        self, s: int, batch: int, last: Last, cells: Cells, history: History, search: Search
    ) -> Any:
        heads, sparsity = history.rows.shape[2:]
        slots, width = cells.memory.shape[1:]
        changed = np.concatenate([history.recycled[s].clip(0), last.rows.reshape(batch, -1)], axis=1)
        search.source.update(cells, torch.from_numpy(changed))
        keys = history.said[s][:, : heads * width].reshape(batch, heads, width)
        keys = keys / np.sqrt(np.square(keys).sum(-1, keepdims=True) + NORM_EPSILON)
        layout = Layout(slots, width, heads, sparsity)
        found = search.source.query(torch.from_numpy(keys), cells)
        candidates = with_spares(found, torch.from_numpy(cells.live), layout).contiguous().numpy()
        if search.recall.due():
            shape = (batch, heads, sparsity)
            cosines, best = np.empty(shape, self.dtype), np.empty(shape, self.dtype)
            compiled.compare(keys, candidates, cells, cosines, best)
            search.recall.add(torch.from_numpy(cosines), torch.from_numpy(best))
        return candidates

    def backward(
        self,
        s: int,
        last: Last,
        cells: Cells,
        gradient: Any,
        history: History,
        grad_reads: Tensor | None,
        grad_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        out = np.empty(history.said.shape[1:], self.dtype)
        grad_before = np.empty(history.rows.shape[1:], self.dtype)
        on_reads, on_weights = self.incoming(cells, history, grad_reads, grad_weights)
        compiled.backward(
            s, last.rows, last.weights, cells, gradient, history, on_reads, on_weights, out, grad_before
        )
        return self.as_tensor(out), self.as_tensor(grad_before)

    def swap(self, s: int, last: Last, cells: Cells, history: History) -> None:
        compiled.swap(s, last.rows, cells, history)

    def forget(self, cells: Cells, gradient: Any | None, steps: int, blocks: list[History]) -> None:
        slope = self._no_gradient if gradient is None else gradient
        for block in blocks:
            here = min(steps, len(block.rows))
            compiled.forget(here, cells, slope, block, len(self.initial))
            steps -= here

    def reset(self, cells: Cells, gradient: Any | None) -> None:
        slope = self._no_gradient if gradient is None else gradient
        compiled.reset(cells, slope, self.initial, self.initial_scale)

    def clear(self, cells: Cells, gradient: Any) -> None:
        compiled.clear(cells, gradient)

    def copy(self, source: Cells, target: Cells) -> None:
        compiled.copy(source, target)

    def initial_gradient(self, cells: Cells, gradient: Any) -> Tensor:
        return self.as_tensor(gradient.sum(0))
