"""What runs the steps of a sequence: operations of torch one by one, or something made for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mannlab.contracts import Controller, Memory
from mannlab.errors import ConfigError, choices
from mannlab.model import compiled, graphs
from mannlab.model.graphs import Graphs
from mannlab.model.segments import segmented
from mannlab.model.unroll import Advance, RunState, stepwise
from mannlab.model.watch import Watch

BACKENDS = ("auto", "eager", "compiled", "graphs", "fused")
# Of those, the ones that want nothing but torch's operations, one by one.
PLAIN = ("eager", "compiled")
# Precisions that the fused form of CPUs has.
FULL = ("32-true", "64-true")


def check(backend: str, controller: Controller[Any], memory: Memory[Any], interface: str = "linear") -> None:
    """Raise ConfigError unless ``backend`` is there for these two, joined by that interface."""
    if backend not in BACKENDS:
        raise ConfigError(f"model.backend: there is no '{backend}'.", choices(backend, BACKENDS, "backends"))
    why = None
    if backend == "fused":
        why = _missing(controller, memory) or _unfit(controller)
        if interface != "linear":
            why = why or f"model.interface={interface} has no fused form"
    elif backend == "graphs":
        why = _formless(controller, memory)
    elif backend == "compiled" and not _functional(memory):
        why = f"{type(memory).__name__} has a step of its own: its memory is changed in place, or grows"
    if why:
        raise ConfigError(
            f"model.backend: {backend} is not allowed here: {why}.",
            "Use model.backend=auto, which runs anything.",
        )


def _functional(memory: Memory[Any]) -> bool:
    kind = type(memory)
    return kind.snapshot is Memory.snapshot and kind.step is Memory.step


def _formless(controller: Controller[Any], memory: Memory[Any]) -> str | None:
    """Which of the two does not say that its steps work on nothing but tensors, by having a fused form."""
    for part in (memory, controller):
        # Nor does what is inherited hold for a class that changes what a step does.
        if "fused" not in vars(type(part)):
            kind = "memory" if part is memory else "controller"
            return f"the {kind} {type(part).__name__} has no fused form"
    return None


def _missing(controller: Controller[Any], memory: Memory[Any]) -> str | None:
    """Why these two have no fused form on a CPU, whatever they are given."""
    return "numba is not installed" if find_spec("numba") is None else _formless(controller, memory)


def _unfit(controller: Controller[Any]) -> str | None:
    """Why a controller that has a fused form has none with its options."""
    if controller.fused(controller.init_state(1)) is None:
        return f"the controller {type(controller).__name__} has no fused form with these options"
    return None


def _kernels(memory: Memory[Any], state: Any) -> Advance | None:
    """The memory's step as kernels of a GPU."""
    return memory.on_gpu(state) if "on_gpu" in vars(type(memory)) else None


def describe(
    backend: str,
    controller: Controller[Any],
    memory: Memory[Any],
    device: torch.device,
    interface: nn.Module | None = None,
    precision: str = "32-true",
) -> str:
    """One line: what will run the steps, and why.

    Args:
        backend: the option of that name.
        controller: the model's.
        memory: the model's.
        device: where it lies.
        interface: between the two; None: a linear layer.
        precision: Lightning's name for it.

    Raises:
        ConfigError: ``backend`` cannot run on ``device``, or not in that precision.
    """
    if backend == "compiled":
        return "backend compiled: the memory's step is compiled by torch, which takes a while, the first time"
    if backend == "eager":
        return "backend eager: model.backend=eager"
    recorded = "whole sequences are CUDA graphs, from the second of a shape on"
    if backend == "graphs":
        if device.type != "cuda":
            raise _no_graphs(device)
        return f"backend graphs: {recorded}"
    if device.type == "cpu":
        why = _missing(controller, memory) or _unfit(controller)
        if interface is not None and not isinstance(interface, nn.Linear):
            why = why or "model.interface=direct has no fused form"
        if precision not in FULL:
            why = why or f"there is no fused form in trainer.precision={precision}"
        if why and backend == "fused":
            raise ConfigError(f"model.backend: fused is not allowed here: {why}.", "Use model.backend=auto.")
        return (
            f"backend eager: {why}, so steps run one by one"
            if why
            else "backend fused: a sequence is one node"
        )
    if "on_gpu" not in vars(type(memory)):
        return f"backend eager: the memory {type(memory).__name__} has no form for {device}"
    if memory.on_gpu(memory.init_state(1)) is None:
        return f"backend eager: no kernels for {device}, or none for memories of this size"
    why = _formless(controller, memory)
    return f"backend fused: the memory's step is one kernel; {why or recorded}"


def run(
    backend: str,
    recorded: Graphs | None,
    controller: Controller[Any],
    memory: Memory[Any],
    interface: nn.Module,
    x: Tensor,
    state: RunState,
    valid: Tensor | None,
    watch: Watch | None,
) -> tuple[Tensor, Tensor, RunState]:
    """As :func:`mannlab.model.unroll.stepwise`, by what ``backend`` says.

    Args:
        recorded: CUDA graphs to use; None: none.

    Raises:
        ConfigError: ``backend`` cannot run where the model is.
    """
    parts = (controller, memory, interface, x, state, valid)
    walk = segmented if controller.segment > 1 else stepwise
    if backend in PLAIN:
        step = partial(compiled.advance, memory) if backend == "compiled" else None
        return walk(*parts, watch, step)
    # What the memory shows of each step is not kept by the fused form.
    done = fused(*parts) if backend != "graphs" and watch is None else None
    if done is not None:
        return done
    advance = _on_device(backend, memory, x, state)
    if recorded is not None and watch is None and _records(backend, recorded, controller, memory, x, advance):
        done = graphs.sequence(recorded, *parts, advance)
    return done or walk(*parts, watch, advance)


def _no_graphs(device: torch.device) -> ConfigError:
    return ConfigError(
        f"model.backend: graphs is not allowed on {device}: it is for CUDA devices.",
        "Use model.backend=auto.",
    )


def _records(
    backend: str,
    recorded: Graphs,
    controller: Controller[Any],
    memory: Memory[Any],
    x: Tensor,
    advance: Advance | None,
) -> bool:
    """Whether the sequence is to be a CUDA graph."""
    here = x.device.type in recorded.devices
    if backend == "graphs" and not here:
        raise _no_graphs(x.device)
    wanted = backend == "graphs" or advance is not None
    return here and wanted and _formless(controller, memory) is None


def _on_device(backend: str, memory: Memory[Any], x: Tensor, state: RunState) -> Advance | None:
    """What makes the memory's steps where ``x`` lies; None: the memory itself."""
    if backend == "graphs" or x.device.type == "cpu":
        return None
    advance = _kernels(memory, state.memory) if x.is_cuda else None
    if advance is None and backend == "fused":
        raise ConfigError(
            f"model.backend: fused is not allowed on {x.device}: {type(memory).__name__} has no "
            "kernels there (they need triton and a CUDA device), or none for its size.",
            "Use model.backend=auto.",
        )
    return advance


def fused(
    controller: Controller[Any],
    memory: Memory[Any],
    interface: Callable[[Tensor], Tensor],
    x: Tensor,
    state: RunState,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor, RunState] | None:
    """As :func:`mannlab.model.unroll.stepwise`, as one node on a CPU; None where there is no such form."""
    if x.device.type != "cpu" or _missing(controller, memory) or not isinstance(interface, nn.Linear):
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
