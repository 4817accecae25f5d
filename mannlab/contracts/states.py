"""States: nested tuples of tensors, the batch first."""

from __future__ import annotations

from collections.abc import Callable
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
        return _like(new, [hold(valid, n, o) for n, o in zip(new, old, strict=True)])
    return new


def cut(state: Any) -> Any:
    """``state`` with its tensors detached, through nested tuples."""
    return _each(state, Tensor.detach)


def pick(state: Any, rows: Tensor) -> Any:
    """``state`` with row ``rows[i]`` of each ``[B, ...]`` tensor as its row i, through nested tuples."""
    return _each(state, lambda tensor: tensor.index_select(0, rows))


def _each(state: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, tuple):
        return _like(state, [_each(part, function) for part in state])
    return state


def _like(state: tuple[Any, ...], parts: list[Any]) -> Any:
    """A tuple of ``parts``, named as ``state`` is."""
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
