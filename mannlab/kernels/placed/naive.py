"""The definition, one number at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def placed_sum(table: Tensor, symbols: Tensor, parts: Tensor | None) -> Tensor:
    """``[V, D]``, ``int64[T, J]`` and ``[D]`` to ``[T, D]``, as :func:`mannlab.kernels.placed.placed_sum`."""
    rows = []
    for row in symbols.tolist():
        said = [symbol for symbol in row if symbol >= 0]
        total = torch.zeros_like(table[0])
        for place, symbol in enumerate(said, start=1):
            weight = torch.ones_like(total)
            if parts is not None:
                share = place / len(said)
                weight = torch.stack([(1 - share) - part * (1 - 2 * share) for part in parts])
            total = total + weight * table[symbol]
        rows.append(total)
    return torch.stack(rows)
