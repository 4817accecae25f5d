"""Room for the history of a sequence, used again by the next one.

Fresh memory costs a page fault for every 4 KiB, which for a large history takes longer than filling it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_KEPT = 8
ALIGNMENT = 16  # numbers: a cache line of the shorter type

# Threads and the garbage collector, which may give room back at any line, come in between: what is found in a
# copy is taken only if it is still there. No lock, which a forked process would inherit in whatever state.
_free: set[Tensor] = set()

# Tests set it to NaN, so that a cell that is read before it is written spoils the result.
fill: float | None = None


def _take(size: int, dtype: torch.dtype) -> Tensor:
    fitting = [room for room in _free.copy() if room.dtype == dtype and size <= len(room) <= 4 * size]
    for room in sorted(fitting, key=len):
        try:
            _free.remove(room)
        except KeyError:
            continue
        return room
    # An evaluation's room is for training, too, which may not write to a tensor of inference mode.
    with torch.inference_mode(False):
        return torch.empty(size, dtype=dtype)


class History:
    """Named arrays in one piece of memory, which is given back when nobody holds this object any more.

    Args:
        shapes: of the arrays, by name.
        dtype: of all of them.

    Attributes:
        tensors: by name, not initialised. They must not be kept longer than this object.
        arrays: the same memory, for compiled code.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        sizes = [-(-math.prod(shape) // ALIGNMENT) * ALIGNMENT for shape in shapes.values()]
        self._room = _take(sum(sizes), dtype)
        if fill is not None:
            self._room.fill_(fill)
        self.tensors: dict[str, Tensor] = {}
        at = 0
        for (name, shape), size in zip(shapes.items(), sizes, strict=True):
            self.tensors[name] = self._room[at : at + math.prod(shape)].view(shape)
            at += size
        self.arrays: dict[str, np.ndarray[Any, Any]] = {
            name: tensor.numpy() for name, tensor in self.tensors.items()
        }

    def __del__(self) -> None:
        # While the interpreter ends, what is above may be gone.
        if _free is not None and hasattr(self, "_room"):
            _free.add(self._room)
            kept = _free.copy()
            if len(kept) > MOST_KEPT:
                _free.discard(min(kept, key=len))


def forget() -> None:
    """Give free memory back to the system."""
    _free.clear()
