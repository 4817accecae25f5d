"""States: nested tuples of tensors, the batch first."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")


def hold(valid: Tensor, new: Any, old: Any) -> Any:
    """``new`` where ``valid[B]`` is 1, ``old`` elsewhere, through nested tuples of ``[B, ...]`` tensors."""
    if isinstance(new, Tensor):
        keep = valid.reshape(-1, *(1,) * (new.dim() - 1)).bool()
        return torch.where(keep, new, old)
    if isinstance(new, tuple):
        held = [hold(valid, n, o) for n, o in zip(new, old, strict=True)]
        return type(new)(*held) if hasattr(new, "_fields") else tuple(held)
    return new


def cut(state: Any) -> Any:
    """``state`` with its tensors detached, through nested tuples."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple):
        parts = [cut(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def pick(state: Any, rows: Tensor) -> Any:
    """``state`` with row ``rows[i]`` of each ``[B, ...]`` tensor as its row i, through nested tuples."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, tuple):
        parts = [pick(part, rows) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state
