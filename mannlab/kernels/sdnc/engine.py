"""The engine of the Sparse Differentiable Neural Computer: numpy arrays, worked on by compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mannlab.kernels.sam import compiled as sam
from mannlab.kernels.sam.numba_engine import NumbaEngine
from mannlab.kernels.sam.session import Last, Search
from mannlab.kernels.sdnc import compiled
from mannlab.kernels.sdnc.layout import Cells, History


class SdncEngine(NumbaEngine):
    """See :class:`mannlab.kernels.sam.session.Engine`."""

    step_function = compiled.step

    def cells(self, batch: int, layout: Any) -> Any:
        basic = super().cells(batch, layout)
        links = (batch, layout.slots, layout.links)
        return Cells(
            *basic,
            np.zeros(links, np.int64),
            np.zeros(links, self.dtype),
            np.zeros(links, np.int64),
            np.zeros(links, self.dtype),
            np.zeros((batch, layout.links), np.int64),
            np.zeros((batch, layout.links), self.dtype),
        )

    def history(self, steps: int, batch: int, layout: Any) -> Any:
        heads, depth = layout.heads, layout.read_rows
        return History(
            np.zeros((steps, batch, layout.interface), self.dtype),
            np.zeros((steps, batch, heads), np.int64),
            np.zeros((steps, batch, heads, depth), np.int64),
            np.zeros((steps, batch, heads, depth), self.dtype),
            np.zeros((steps, batch, heads, layout.sparsity), self.dtype),
            np.zeros((steps, batch, layout.changed, layout.width), self.dtype),
            np.zeros((steps, batch, heads, depth), self.dtype),
            np.zeros((steps, batch, heads, depth, 2 * layout.sparsity), self.dtype),
        )

    def nothing(self, batch: int, layout: Any) -> Last:
        shape = (batch, layout.heads, layout.read_rows)
        return Last(np.zeros(shape, np.int64), np.zeros(shape, self.dtype))

    def forward(
        self,
        s: int,
        interface: Tensor,
        valid: Tensor | None,
        last: Last,
        cells: Any,
        history: Any,
        search: Search | None = None,
    ) -> tuple[Tensor, Tensor]:
        heads, width = history.rows.shape[2], cells.memory.shape[2]
        reads = np.empty((len(interface), heads * width), self.dtype)
        said, real = self.as_numpy(interface), self.as_real(valid, len(interface))
        compiled.step(s, said, real, last.rows, last.weights, cells, history, reads)
        return self.as_tensor(reads), self.as_tensor(history.weights[s].copy())

    def backward(
        self,
        s: int,
        last: Last,
        cells: Any,
        gradient: Any,
        history: Any,
        grad_reads: Tensor | None,
        grad_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        out = np.empty(history.said.shape[1:], self.dtype)
        grad_before = np.empty(history.rows.shape[1:], self.dtype)
        on_reads, on_weights = self.incoming(cells, history, grad_reads, grad_weights)
        compiled.backward(
            s, last.rows, last.weights, cells, gradient, history, on_reads, on_weights, out, grad_before
        )
        sam.swap(s, last.rows, cells, history)
        return self.as_tensor(out), self.as_tensor(grad_before)

    def forget(self, cells: Any, gradient: Any | None, steps: int, blocks: list[Any]) -> None:
        slope = self._no_gradient if gradient is None else gradient
        for block in blocks:
            here = min(steps, len(block.rows))
            compiled.forget(here, cells, slope, block, len(self.initial))
            steps -= here

    def reset(self, cells: Any, gradient: Any | None) -> None:
        compiled.forget_links(cells)
        super().reset(cells, gradient)

    def copy(self, source: Any, target: Any) -> None:
        super().copy(source, target)
        compiled.copy_links(source, target)


def make_engine(like: Tensor, initial: Tensor | None) -> SdncEngine:
    """The engine for the type of ``like``. It works on the CPU; elsewhere each step goes there and back."""
    return SdncEngine(like.dtype, initial if initial is None else initial.detach().cpu(), like.device)
