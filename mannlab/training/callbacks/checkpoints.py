"""Keep the best and the last state of a run."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint

from mannlab.errors import MannlabError
from mannlab.training.checkpoints import FOLDER, of_run, read_checkpoint, replace_file, to_resume


class Checkpoints(Checkpoint):
    """``checkpoints/last.ckpt`` after every validation and at the end, ``best.ckpt`` by the main metric.

    With a curriculum, the best is the best of those validated at the largest size: whoever has not met
    that size yet may do better on small ones.

    Args:
        every_n_steps: also write last.ckpt each this many optimizer steps; null: at validations only.

    Attributes:
        kept: whether the folder's last.ckpt is of this run, and not of another one before.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self.best_value: float | None = None
        self.best_step = -1
        self.best_level = 0
        self._saved_step = -1
        self._resumed: Path | None = None
        self.kept = False

    def resumed_from(self, path: Path) -> None:
        """Say where the run continues from, so that its best checkpoint can be carried over."""
        self._resumed = path

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._saved_step = trainer.global_step
        self.kept = self._resumed is not None and of_run(self._resumed, _run(trainer))
        earlier, own = self._earlier(trainer, pl_module), self._path(trainer, "best")
        # Another rank may still be reading what is removed.
        trainer.strategy.barrier("best checkpoint")
        if earlier is None:
            self.best_value, self.best_step, self.best_level = None, -1, 0
            # What an earlier run left here is not this one's; what the user goes on from stays.
            if trainer.is_global_zero and own.resolve() != self._resumed:
                own.unlink(missing_ok=True)
        elif trainer.is_global_zero:
            replace_file(own, lambda temporary: shutil.copyfile(earlier, temporary), _run(trainer))

    def _earlier(self, trainer: Any, pl_module: Any) -> Path | None:
        """The best checkpoint of the run that goes on here, if it is this one's as well."""
        if self._resumed is None or self.best_value is None:
            return None
        # What another memory has reached is not this one's best, nor is what small sizes alone have taught.
        if pl_module.resized or (trainer.datamodule.curriculum.ceiling is None and self.best_level > 0):
            return None
        # A run that is killed as it notes its best has it as its last.
        for path in (self._resumed.parent / "best.ckpt", self._resumed):
            if path.is_file() and int(read_checkpoint(path)["global_step"]) == self.best_step:
                return path
        return None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0:
            self.save_last(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = pl_module.results.get(pl_module.objective)
        level = trainer.datamodule.curriculum.ceiling or 0
        better = value is not None and self._better(value, level, pl_module.task.objective.mode)
        if better:
            self.best_value, self.best_step, self.best_level = value, trainer.global_step, level
        # Again, if it is saved already: what a validation changes is part of it.
        self._saved_step = -1
        self.save_last(trainer, pl_module)
        if better and trainer.is_global_zero:
            last = self._path(trainer, "last")
            replace_file(self._path(trainer, "best"), lambda temporary: _copy(last, temporary), _run(trainer))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        # The only epoch's. Afterwards, averaged weights take the place of those that a resumed run needs.
        self.save_last(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.save_last(trainer, pl_module)

    def save_last(self, trainer: Any, pl_module: Any) -> None:
        """Write last.ckpt unless this step is saved already; every rank must call it."""
        step = trainer.global_step
        if step == 0 or step == self._saved_step:
            return
        refuse_broken(trainer, pl_module)
        trainer.save_checkpoint(self._path(trainer, "last"))
        self._saved_step, self.kept = step, True

    def _better(self, value: float, level: int, mode: str) -> bool:
        if math.isnan(value):
            return False
        if self.best_value is None or level > self.best_level:
            return True
        return value < self.best_value if mode == "min" else value > self.best_value

    def _path(self, trainer: Any, kind: str) -> Path:
        return _run(trainer) / FOLDER / f"{kind}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step, "best_level": self.best_level}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]
        self.best_level = state_dict.get("best_level", 0)


def _copy(source: Path, target: Path) -> None:
    # The same file under two names: last.ckpt is only ever swapped for a new file, never changed.
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def _run(trainer: Any) -> Path:
    return Path(trainer.default_root_dir)


def refuse_broken(trainer: Any, pl_module: Any) -> None:
    """Raise rather than let weights that are not finite replace a good checkpoint."""
    for name, parameter in pl_module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise MannlabError(
                f"Parameter '{name.removeprefix('model.')}' is not finite after step {trainer.global_step}.",
                f"Try a lower optimizer.lr{go_on(trainer)}.",
            )


def go_on(trainer: Any) -> str:
    """How a run that has to stop can go on, to be said after what to try; nothing if it saved nothing."""
    mine = any(isinstance(callback, Checkpoints) and callback.kept for callback in trainer.callbacks)
    more = to_resume(_run(trainer)) if mine else None
    return f"; continue with {more}: the last checkpoint, from before, was kept" if more else ""
