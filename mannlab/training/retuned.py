"""Going on with other options of the optimizer or the scheduler than a run had."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mannlab.training.build import TARGET

KINDS = ("optimizer", "scheduler")
# Options of torch's optimizers that decide what is kept of earlier steps, and where.
KEPT = ("momentum", "centered", "amsgrad", "fused", "capturable")


def tuning(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of a configuration that say how a run steps, as plain containers."""
    return {kind: copy.deepcopy(dict(config.get(kind) or {})) for kind in KINDS}


def say(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """A line that names options with what they are and were, ``{"optimizer.lr": (before, now)}``."""
    return "goes on with " + ", ".join(f"{key}={now} (before: {old})" for key, (old, now) in changes.items())


class Retuned:
    """Lets what a resumed run is given now win over what its checkpoint restores.

    A scheduler whose options changed, or whose learning rate did, stands where it would if the run had had
    them from its first step; one that waits for a metric begins anew. An optimizer of another class, or one
    that now keeps another history (with a momentum, or without), begins without any.

    Args:
        before: :func:`tuning` of the run that is resumed; None: not known, so nothing changed.
        now: the same of this run.

    Attributes:
        changes: each option that is another now, ``{"optimizer.lr": (before, now)}``.
    """

    def __init__(self, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
        self.changes: dict[str, tuple[Any, Any]] = {}
        for kind in KINDS if before is not None else ():
            old, new = (dict(settings.get(kind) or {}) for settings in (before or {}, now))
            for key in {**old, **new}:
                if old.get(key) != new.get(key):
                    self.changes[f"{kind}.{key}"] = old.get(key), new.get(key)
        self._begins: list[dict[str, Any]] = []

    @property
    def _replaced(self) -> bool:
        switched = (self.changes.get(f"optimizer.{key}", (0, 0)) for key in KEPT)
        return f"optimizer.{TARGET}" in self.changes or any(bool(old) != bool(new) for old, new in switched)

    @property
    def _rescheduled(self) -> bool:
        """Whether learning rates are not those that the checkpoint knows."""
        return any(key == "optimizer.lr" or key.startswith("scheduler.") for key in self.changes)

    def begin(self, optimizer: Optimizer) -> None:
        """Remember what an optimizer's groups begin with, its scheduler made, nothing restored."""
        self._begins = [_options(group) for group in optimizer.param_groups]

    def leave_out(self, checkpoint: dict[str, Any]) -> None:
        """Take from a checkpoint what must not be restored."""
        if self._replaced:
            # Tables have an optimizer of their own, which is the same.
            states = [state for state in checkpoint["optimizer_states"] if "rows" in state]
            checkpoint["optimizer_states"] = [{"main": None, "rows": state["rows"]} for state in states]
        if self._replaced or self._rescheduled:
            checkpoint["lr_schedulers"] = []

    def apply(self, optimizer: Optimizer, scheduler: Any, steps: int) -> str:
        """Put the changes to work, after all else is restored; returns a line that names them.

        Args:
            optimizer: the run's own.
            scheduler: the run's own, or None.
            steps: that the optimizer has made.
        """
        if not self.changes:
            return ""
        # The rate of one that waits for a metric is what it has come to.
        waits = isinstance(scheduler, ReduceLROnPlateau) and f"scheduler.{TARGET}" not in self.changes
        anew = self._replaced or (self._rescheduled and not waits)
        changed = {key.partition(".")[2] for key in self.changes if key.startswith("optimizer.")}
        for group, begins in zip(optimizer.param_groups, self._begins, strict=True):
            group.update({key: value for key, value in begins.items() if anew or key in changed})
        if anew and scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            with warnings.catch_warnings():
                # Of steps before the optimizer's: those were made before the run was resumed.
                warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)`")
                for _ in range(steps):
                    scheduler.step()
        return say(self.changes) + ("; the optimizer begins without a history" if self._replaced else "")


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
