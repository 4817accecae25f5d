"""The dense memory in a fused sequence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mannlab.kernels.fused.rows import RowsCell
from mannlab.kernels.ntm import compiled


class DenseCell(RowsCell):
    """Graves et al. 2014 (arXiv 1410.5401), as ``naive.py`` has it.

    Args:
        memory: the initial one, ``[B, N, W]``.
        weights: the initial ones, ``[B, H, N]``, read heads first.
        writers: V, how many of the heads write.
        shifts: S, how many moves a head may make.
    """

    what, seconds, differentiable = "the dense memory", 20, 2
    compiled_forward, compiled_backward = compiled.forward, compiled.backward

    def __init__(self, memory: Tensor, weights: Tensor, writers: int, shifts: int) -> None:
        super().__init__((memory, weights), writers, shifts)
        self.writers, self.shifts = writers, shifts

    def sizes(self, state: Sequence[Tensor]) -> tuple[int, dict[str, tuple[int, ...]], int]:
        memory, weights = state
        heads, (_, slots, width) = weights.shape[1], memory.shape
        fields = heads * (width + self.shifts + 3) + 2 * self.writers * width
        kept = dict.fromkeys(("similar", "content", "logs"), (heads, slots))
        return fields, {**kept, "scales": (slots,)}, slots * (width + 8) * heads
