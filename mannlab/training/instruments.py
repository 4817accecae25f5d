"""What is measured of training itself: lengths of gradients, and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mannlab.model import MANN
from mannlab.training.tables import WithTables, numbers_of

PARTS = ("encoder", "controller", "memory", "interface", "head")


class Meter:
    """Sequences and steps a second, of training alone: the clock stands still while it is paused."""

    def __init__(self) -> None:
        self._since: tuple[float, int, int] | None = None
        self._paused: float | None = None

    def start(self, sequences: int, steps: int) -> None:
        """Count from here: so many sequences and steps were made before."""
        self._since, self._paused = (time.monotonic(), sequences, steps), None

    def pause(self) -> None:
        """Something else begins, such as a validation."""
        if self._paused is None:
            self._paused = time.monotonic()

    def go_on(self) -> None:
        """It has ended."""
        if self._since is not None and self._paused is not None:
            began, sequences, steps = self._since
            self._since = (began + time.monotonic() - self._paused, sequences, steps)
        self._paused = None

    def rates(self, sequences: int, steps: int) -> tuple[float, float] | None:
        """Sequences and steps a second since :meth:`start`; None before it, or if there was no step."""
        if self._since is None or steps <= self._since[2]:
            return None
        began, *before = self._since
        seconds = max(1e-9, (self._paused or time.monotonic()) - began)
        return (sequences - before[0]) / seconds, (steps - before[1]) / seconds


class Instruments:
    """Collects what is to be logged of a training step, until its gradients are known.

    Args:
        model: whose gradients.
    """

    def __init__(self, model: MANN) -> None:
        self.model, self.meter = model, Meter()
        self._values: dict[str, float] | None = None
        self._norms: dict[str, Tensor] = {}

    @property
    def waiting(self) -> bool:
        """Whether something is to be logged at the end of this step."""
        return self._values is not None

    def note(self, values: Mapping[str, float]) -> None:
        """Values of a batch; with accumulated gradients the last batch of a step is logged."""
        self._values = dict(values)

    def look(self, optimizer: Optimizer) -> None:
        """Measure gradients, before they are clipped, if something is to be logged. On every rank."""
        if self.waiting:
            self._norms = gradient_norms(self.model, optimizer)

    def take(self, sequences: int, steps: int) -> dict[str, float]:
        """Everything of the step that has just ended: so many sequences and steps were made by now."""
        values, self._values = self._values or {}, None
        rates = self.meter.rates(sequences, steps)
        if rates is not None:
            values["train_speed/sequences_per_second"], values["train_speed/steps_per_second"] = rates
        if self._norms:
            # One wait for the device for all of them.
            lengths = torch.stack([norm.double() for norm in self._norms.values()]).tolist()
            names = (f"train_gradients/{part}_norm" for part in self._norms)
            values |= dict(zip(names, lengths, strict=True))
        self._norms = {}
        self.meter.start(sequences, steps)
        return values


def parts_of(model: MANN) -> dict[int, str]:
    """To which of :data:`PARTS` each parameter belongs, by its id; a shared one to the first that has it."""
    found: dict[int, str] = {}
    inside: list[tuple[str, nn.Module]] = [("memory", memory) for memory in model.hosted]
    for part, module in [*inside, *((part, getattr(model, part)) for part in PARTS)]:
        for parameter in module.parameters():
            found.setdefault(id(parameter), part)
    return found


def gradient_norms(model: MANN, optimizer: Optimizer) -> dict[str, Tensor]:
    """Euclidean lengths of the gradients: ``global``, and of each part of the model that has any.

    Gradients that are kept in factors (see ``mannlab.kernels.bag``) are those of memories.
    """
    whole: Any = getattr(optimizer, "optimizer", optimizer)
    parts = parts_of(model)
    grads: dict[str, list[Tensor]] = {}
    for parameter, numbers in numbers_of(whole):
        grads.setdefault(parts.get(id(parameter), "other"), []).append(numbers)
    squares = {
        part: torch.stack([norm.square() for norm in torch._foreach_norm(grads[part])]).sum()
        for part in (*PARTS, "other")
        if part in grads
    }
    if isinstance(whole, WithTables):
        rows = whole.rows.squared_norm()
        squares["memory"] = squares.get("memory", torch.zeros_like(rows)).to(rows) + rows
    if not squares:
        return {}
    total = torch.stack([square.to(next(iter(squares.values()))) for square in squares.values()]).sum()
    return {"global": total.sqrt(), **{part: square.sqrt() for part, square in squares.items()}}
