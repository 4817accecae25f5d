"""A live line in terminals, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning.pytorch.callbacks import Callback, Timer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from mannlab.progress import Advance, clock, counting, disown, own
from mannlab.training.summary import FILE_ONLY

log = logging.getLogger("mannlab.progress")


def level_of(trainer: Any) -> str:
    """How far a curriculum has come, in words; empty without one."""
    ceiling = trainer.datamodule.curriculum.ceiling
    return "" if ceiling is None else f"sizes to {ceiling}"


def seconds_allowed(trainer: Any) -> float | None:
    """What is left of ``trainer.max_time``, at least 0; None without one."""
    for callback in trainer.callbacks:
        if isinstance(callback, Timer):
            left = callback.time_remaining()
            return None if left is None else max(0.0, left)
    return None


class TimeLeft(TimeRemainingColumn):
    """The time to the last step, or what is left of ``trainer.max_time`` where that is less."""

    def render(self, task: Task) -> Text:
        """One cell, such as 0:01:05."""
        known = [s for s in (task.time_remaining, task.fields.get("allowed")) if s is not None]
        return Text(clock(min(known)) if known else "-:--:--", style="progress.remaining")


class Progress(Callback):
    """Steps, sequences, loss, the main metric, sequences a second and the time left.

    In a terminal: one live line, redrawn at most ``refreshes_per_second`` times. Elsewhere (a file, a
    batch job): one plain line a validation, and one when nothing was said for ``quiet_seconds``. Tests, and
    validations in plain lines, count batches (see ``mannlab.progress``).

    Args:
        refreshes_per_second: how often the live line may change.
        quiet_seconds: the longest that training says nothing in plain lines.
    """

    def __init__(self, refreshes_per_second: float = 8.0, quiet_seconds: float = 60.0) -> None:
        self.quiet = quiet_seconds
        self._counting = ExitStack()
        self._advance: Advance = lambda count: None
        self.pause = 1.0 / refreshes_per_second
        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._line: Any = None
        self._drawn = 0.0
        self._since = (0.0, 0)
        self._began = (0.0, 0)
        self._metric = ""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._since = self._began = (time.monotonic(), trainer.datamodule.consumed)
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeLeft(),
            console=self.console,
            auto_refresh=False,
            transient=False,
        )
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._line = self._bar.add_task("train", total=total, completed=trainer.global_step, facts="")
        own(self)
        self._bar.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if self._bar is None:
            if trainer.is_global_zero and time.monotonic() - self._since[0] > self.quiet:
                self._line_out(trainer, pl_module)
        elif time.monotonic() - self._drawn >= self.pause:
            self._draw(trainer, pl_module, "train")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self._bar is None and trainer.is_global_zero:
            self._count("Validating", trainer.num_val_batches)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self._advance(1)
        if self._bar is not None and time.monotonic() - self._drawn >= self.pause:
            self._draw(trainer, pl_module, "check")

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self._count("Testing", trainer.num_test_batches)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self._advance(1)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._counted()

    def _count(self, title: str, batches: Sequence[float]) -> None:
        """Count batches, so many of each set; the line is given back after the last."""
        left = total = int(sum(batches))
        advance = self._counting.enter_context(counting(title, total, "batches"))

        def on(count: int) -> None:
            nonlocal left
            left -= count
            advance(count)
            if left <= 0:
                self._counted()

        self._advance = on

    def _counted(self) -> None:
        self._counting.close()
        self._advance = lambda count: None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._counted()
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        metric = pl_module.task.objective.watched
        value = pl_module.results.get(f"{pl_module.task.splits('val')[0].stream}/{metric}")
        self._metric = f"{metric} {value:.4g}" if value is not None else ""
        if self._bar is not None:
            self._draw(trainer, pl_module, "train")
        else:
            self._line_out(trainer, pl_module)

    def _line_out(self, trainer: Any, pl_module: Any) -> None:
        """A plain line."""
        now, seen = time.monotonic(), trainer.datamodule.consumed
        rate = (seen - self._since[1]) / max(1e-9, now - self._since[0])
        self._since = (now, seen)
        loss = "" if pl_module.last_loss is None else f"  loss {float(pl_module.last_loss):.4g} nats"
        level = level_of(trainer)
        total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        log.info(
            "step %d%s  %s sequences%s  %s%s  %s sequences/s%s",
            trainer.global_step,
            total,
            f"{seen:,}",
            loss,
            self._metric,
            f"  {level}" if level else "",
            f"{rate:,.0f}",
            self._left(trainer),
            extra=FILE_ONLY if self._bar is not None else None,
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._bar is not None:
            self._draw(trainer, pl_module, "done")
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _draw(self, trainer: Any, pl_module: Any, word: str) -> None:
        assert self._bar is not None
        now, seen = time.monotonic(), trainer.datamodule.consumed
        if now - self._since[0] > 5:
            self._since = (now, seen)
        begun, before = self._since if now - self._since[0] > 1 else self._began
        rate = (seen - before) / max(1e-9, now - begun)
        loss = "" if pl_module.last_loss is None else f"loss {float(pl_module.last_loss):.4g}"
        facts = "  ".join(
            part
            for part in (f"{seen:,} seq", loss, self._metric, level_of(trainer), f"{rate:,.0f} seq/s")
            if part
        )
        self._bar.update(
            self._line,
            description=word,
            completed=trainer.global_step,
            facts=facts,
            allowed=seconds_allowed(trainer),
            refresh=True,
        )
        self._drawn = now

    def _left(self, trainer: Any) -> str:
        known = [s for s in (self._to_last_step(trainer), seconds_allowed(trainer)) if s is not None]
        return f"  {clock(min(known))} left" if known else ""

    def _to_last_step(self, trainer: Any) -> float | None:
        consumed = trainer.datamodule.consumed
        if trainer.max_steps <= 0 or consumed <= self._began[1]:
            return None
        to_do = (trainer.max_steps - trainer.global_step) * consumed / max(1, trainer.global_step)
        return (time.monotonic() - self._began[0]) * to_do / (consumed - self._began[1])

    def _close(self) -> None:
        self._counted()
        if self._bar is not None:
            disown(self)
            self._bar.stop()
            self._bar = None
