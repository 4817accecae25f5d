"""Choosing the engine for a device."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from mannlab.errors import ConfigError
from mannlab.kernels.sam.session import Engine


def make_engine(like: Tensor, initial: Tensor | None, wanted: str = "auto") -> Engine:
    """The engine for the device and floating type of ``like``.

    Args:
        like: a tensor of that device and type.
        initial: ``[N, W]``, the initial memory, or None for zeros.
        wanted: ``numba`` (CPU only), ``torch`` (any device), or ``auto``, the fastest that works.

    Raises:
        ConfigError: numba is asked for on another device, or is not installed.
    """
    on_cpu, there = like.device.type == "cpu", find_spec("numba") is not None
    if wanted == "numba" and not (on_cpu and there):
        why = (
            "numba is not installed" if on_cpu else f"the model is on {like.device}, and numba works on CPUs"
        )
        raise ConfigError(f"memory.engine: numba cannot be used: {why}.", "Use memory.engine=auto.")
    if wanted == "torch" or not (on_cpu and there):
        from mannlab.kernels.sam.torch_engine import TorchEngine

        return TorchEngine(like, initial)
    from mannlab.kernels.sam.numba_engine import NumbaEngine

    return NumbaEngine(like.dtype, initial)


def fallback_index() -> str:
    """What ``auto`` turns to on a CPU when many rows are in use: ``faiss`` if installed, else ``lsh``."""
    return "faiss" if find_spec("faiss") is not None else "lsh"
