"""What runs the steps of a sequence: operations of torch one by one, or one node for all of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mannlab.contracts import Controller, Memory
from mannlab.errors import ConfigError, choices
from mannlab.model.unroll import RunState

BACKENDS = ("auto", "eager", "compiled", "fused")


def check(backend: str, controller: Controller[Any], memory: Memory[Any]) -> None:
    """Raise ConfigError unless ``backend`` is there for these two."""
    if backend not in BACKENDS:
        raise ConfigError(f"model.backend: there is no '{backend}'.", choices(backend, BACKENDS, "backends"))
    why = None
    if backend == "fused":
        why = _missing(controller, memory)
    elif backend == "compiled" and not _functional(memory):
        why = f"{type(memory).__name__} changes its memory in place, with kernels of its own"
    if why:
        raise ConfigError(
            f"model.backend: {backend} is not allowed here: {why}.",
            "Use model.backend=auto, which runs anything.",
        )


def _functional(memory: Memory[Any]) -> bool:
    kind = type(memory)
    return kind.snapshot is Memory.snapshot and kind.step is Memory.step


def _missing(controller: Controller[Any], memory: Memory[Any]) -> str | None:
    """Why these two have no fused form, whatever they are given."""
    if find_spec("numba") is None:
        return "numba is not installed"
    for part in (memory, controller):
        # Nor does what is inherited hold for a class that changes what a step does.
        if "fused" not in vars(type(part)):
            kind = "memory" if part is memory else "controller"
            return f"the {kind} {type(part).__name__} has no such form"
    return None


def describe(backend: str, controller: Controller[Any], memory: Memory[Any], device: torch.device) -> str:
    """One line: what will run the steps, and why."""
    why = _missing(controller, memory)
    if why is None and device.type != "cpu":
        why = f"the fused form is for CPUs and the model is on {device}"
    if backend == "compiled":
        return "backend compiled: the memory's step is compiled by torch, which takes a while, the first time"
    if backend == "eager":
        why = "model.backend=eager"
    return f"backend eager: {why}" if why else "backend fused: a sequence is one node"


def fused(
    backend: str,
    controller: Controller[Any],
    memory: Memory[Any],
    interface: Callable[[Tensor], Tensor],
    x: Tensor,
    state: RunState,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor, RunState] | None:
    """As :func:`mannlab.model.unroll.stepwise`, or None where there is no fused form or it is not wanted.

    Raises:
        ConfigError: ``backend`` is fused and the model is not on a CPU.
    """
    if (
        backend in ("eager", "compiled")
        or _missing(controller, memory)
        or not isinstance(interface, nn.Linear)
    ):
        return None
    if x.device.type != "cpu":
        if backend == "fused":
            raise ConfigError(
                f"model.backend: fused is not allowed on {x.device}: it is for CPUs.",
                "Use model.backend=auto.",
            )
        return None
    weight = interface.weight
    types = (torch.float32, torch.float64)
    if x.dtype != weight.dtype or x.dtype not in types or torch.is_autocast_enabled("cpu") or x.shape[1] == 0:
        return None
    driver, holder = controller.fused(state.controller), memory.fused(state.memory)
    if driver is None or holder is None:
        return None
    from mannlab.kernels.fused.sequence import run

    hidden, reads, controlled, remembered = run(driver[0], holder[0], interface, x, state.reads, valid)
    return hidden, reads, RunState(driver[1](controlled), holder[1](remembered), reads[:, -1])
