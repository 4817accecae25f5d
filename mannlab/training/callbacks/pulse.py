"""Signs of life of a run for whoever started it, and word from there to stop."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from mannlab.files import replacing
from mannlab.training.callbacks.progress import seconds_allowed
from mannlab.training.callbacks.stop import GracefulStop

PROGRESS, STOP = "progress.json", "stop"


class Pulse(Callback):
    """Keeps ``progress.json`` in the run folder, and stops the run when a file ``stop`` appears there.

    ``{"phase": "train" | "check" | "test", "step", "total", "rate" (sequences a second), "left" (seconds),
    "metric", "mode", "value" (of the last validation), "history": [[step, value], ...], "time"}``. Metric
    and history are of the main metric on the main validation split.

    Args:
        folder: the run folder.
        every_seconds: between two signs while training.
    """

    def __init__(self, folder: Path, every_seconds: float = 1.0) -> None:
        self.folder, self.every = folder, every_seconds
        self.history: list[tuple[int, float]] = []
        self._last = 0.0
        self._began = self._since = (0.0, 0)
        self._asked = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._began = self._since = (time.monotonic(), trainer.datamodule.consumed)
        self.history = self._earlier(trainer.global_step)
        self._beat(trainer, pl_module, "train")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if time.monotonic() - self._last >= self.every:
            self._beat(trainer, pl_module, "train")

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if time.monotonic() - self._last >= self.every:
            self._beat(trainer, pl_module, "check")

    def on_test_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if time.monotonic() - self._last >= self.every:
            self._beat(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = pl_module.results.get(pl_module.objective)
        if value is not None:
            self.history.append((trainer.global_step, float(value)))
        self._beat(trainer, pl_module, "check")

    def _earlier(self, step: int) -> list[tuple[int, float]]:
        """What this run had measured before it was resumed; checkpoints fit runs without a pulse."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))["history"]
            return [(int(at), float(value)) for at, value in found if at <= step]
        return []

    def _beat(self, trainer: Any, pl_module: Any, phase: str) -> None:
        self._last = time.monotonic()
        if not trainer.is_global_zero:
            return
        seen = trainer.datamodule.consumed
        if self._last - self._since[0] > 10:
            self._since = (self._last, seen)
        # A part of the time alone says how fast it is now; at its beginning it says nothing yet.
        begun, before = self._since if self._last - self._since[0] > 2 else self._began
        rate = (seen - before) / max(1e-9, self._last - begun)
        task = pl_module.task
        self._write(
            {
                "phase": phase,
                "step": trainer.global_step,
                "total": trainer.max_steps if trainer.max_steps > 0 else None,
                "rate": rate,
                "left": self._left(trainer, seen),
                "metric": task.objective.metric,
                "mode": task.objective.mode,
                "value": self.history[-1][1] if self.history else None,
                "history": self.history,
                "time": time.time(),
            }
        )
        self._heed(trainer)

    def _left(self, trainer: Any, seen: int) -> float | None:
        known = [seconds_allowed(trainer)]
        done = seen - self._began[1]
        if trainer.max_steps > 0 and done > 0:
            to_do = (trainer.max_steps - trainer.global_step) * seen / max(1, trainer.global_step)
            known.append((time.monotonic() - self._began[0]) * to_do / done)
        return min((seconds for seconds in known if seconds is not None), default=None)

    def _write(self, content: dict[str, Any]) -> None:
        # A sign that is lost costs nothing.
        with suppress(OSError), replacing(self.folder / PROGRESS) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    def _heed(self, trainer: Any) -> None:
        if self._asked or not (self.folder / STOP).exists():
            return
        self._asked = True
        # As if it had come from outside: the run saves, and all ranks agree. Twice would be at once.
        if not any(isinstance(callback, GracefulStop) and callback.asked for callback in trainer.callbacks):
            signal.raise_signal(signal.SIGTERM)
