"""Least recently used access in a fused sequence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mannlab.kernels.fused.rows import RowsCell
from mannlab.kernels.lrua import compiled


class LRUACell(RowsCell):
    """Santoro et al. 2016 (arXiv 1605.06065), as ``naive.py`` has it.

    Args:
        memory: the initial one, ``[B, N, W]``.
        reading: the initial read weights, ``[B, R, N]``.
        writing: the initial write weights, ``[B, R, N]``.
        usage: the initial one, ``[B, N]``.
        fields: widths of what the interface says: key, gate, word and strength; 0 for what it does not.
        decay: of the usage.
    """

    what, seconds, differentiable = "the lrua memory", 20, 2
    compiled_forward, compiled_backward = compiled.forward, compiled.backward

    def __init__(
        self,
        memory: Tensor,
        reading: Tensor,
        writing: Tensor,
        usage: Tensor,
        *,
        fields: Sequence[int],
        decay: float,
    ) -> None:
        key, gate, word, strength = fields
        at_word = key + gate if word else 0
        at_strength = key + gate + word if strength else 0
        super().__init__((memory, reading, writing, usage), float(decay), at_word, at_strength)
        self.fields = sum(fields)

    def sizes(self, state: Sequence[Tensor]) -> tuple[int, dict[str, tuple[int, ...]], int]:
        (_, slots, width), heads = state[0].shape, state[1].shape[1]
        return self.fields, {"similar": (heads, slots), "scales": (slots,)}, slots * (width + 8) * heads
