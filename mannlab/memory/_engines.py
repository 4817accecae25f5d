"""Choosing the engine for a device."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from mannlab.errors import ConfigError
from mannlab.kernels.sam.session import Engine

COMPILED = (torch.float32, torch.float64)  # what compiled code works in


def make_engine(like: Tensor, initial: Tensor | None, wanted: str = "auto") -> Engine:
    """The engine for the device and floating type of ``like``.

    Args:
        like: a tensor of that device and type.
        initial: ``[N, W]``, the initial memory, or None for zeros.
        wanted: ``numba`` (CPU; float32 or float64), ``torch`` (any device and type), or ``auto``, the fastest
            that works.

    Raises:
        ConfigError: numba is asked for on another device or for another type, or is not installed.
    """
    why_not = ""
    if like.device.type != "cpu":
        why_not = f"the model is on {like.device}, and numba works on CPUs"
    elif like.dtype not in COMPILED:
        why_not = f"the model is in {like.dtype}, and numba works in float32 and float64"
    elif find_spec("numba") is None:
        why_not = "numba is not installed"
    if wanted == "numba" and why_not:
        raise ConfigError(f"memory.engine: numba cannot be used: {why_not}.", "Use memory.engine=auto.")
    if wanted == "torch" or why_not:
        from mannlab.kernels.sam.torch_engine import TorchEngine

        return TorchEngine(like, initial)
    from mannlab.kernels.sam.numba_engine import NumbaEngine

    return NumbaEngine(like.dtype, initial)


def fallback_index() -> str:
    """What ``auto`` turns to on a CPU when many rows are in use: ``faiss`` if installed, else ``lsh``."""
    return "faiss" if find_spec("faiss") is not None else "lsh"
