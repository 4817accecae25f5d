"""The Differentiable Neural Computer's memory in a fused sequence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from torch import Tensor

from mannlab.kernels.dnc import compiled, compiled_backward
from mannlab.kernels.dnc.layout import DNCState
from mannlab.kernels.fused.rows import RowsCell


class DNCCell(RowsCell):
    """Graves et al. 2016 with its repairs, as ``naive.py`` has it.

    Args:
        state: the initial one.
        fields: widths of the fields of ``DNCInterface``.
        deallocation: whether rows that are freed are erased.
    """

    what, seconds, differentiable = "the dnc memory", 60, 6
    compiled_forward, compiled_backward = compiled.forward, compiled_backward.backward

    def __init__(self, state: DNCState, fields: Sequence[int], deallocation: bool) -> None:
        super().__init__(tuple(state), np.array([0, *accumulate(fields)]), deallocation)
        self.fields = fields

    def sizes(self, state: Sequence[Tensor]) -> tuple[int, dict[str, tuple[int, ...]], int]:
        memory, _, reading, *_, links = state
        (_, slots, width), heads, linked = memory.shape, reading.shape[1], links.shape[1]
        kept: dict[str, tuple[int, ...]]
        kept = dict.fromkeys(("similar", "content", "scales"), (heads + 1, slots))
        kept |= {"allocated": (slots,), "order": (slots,), "followed": (2, heads, linked)}
        kept["sharp"] = (2, heads, linked if self.fields[-1] else 0)
        return sum(self.fields), kept, slots * (2 * (width + 8) + linked) * heads
