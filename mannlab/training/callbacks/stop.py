"""Ctrl-C and SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.callbacks import Callback

from mannlab.errors import MannlabError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(MannlabError):
    """The user stopped a test."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait; they come through at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {int(n): signal.signal(n, lambda number, _: came.append(number)) for n in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            os.kill(os.getpid(), number)


@contextmanager
def keyboard() -> Iterator[None]:
    """Let Ctrl-C through: inside, Lightning turns it into an exit with code 1.

    Raises:
        KeyboardInterrupt: instead of that.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt("stopped at once") from error
        raise


class GracefulStop(Callback):
    """The first Ctrl-C or SIGTERM stops after the present step and saves; the second one stops at once.

    After either the summary is written; a checkpoint that is being written is completed or left out.

    Attributes:
        stopped: whether training was stopped this way.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._asked = False
        self._previous: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has come to this process."""
        return self._asked

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        # Lightning puts its own handlers in after this, and takes them out before teardown.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._install()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._install()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self._check(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._check(trainer)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if self._agreed(trainer):
            self.stopped = True
            raise Interrupted(
                "Stopped during the test.", "The checkpoints are complete; eval runs the test again."
            )

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._restore()

    def _check(self, trainer: Any) -> None:
        if not self.stopped and self._agreed(trainer):
            self.stopped = True
            trainer.should_stop = True
            # Lightning would go on to these.
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
            # Lightning would validate once more before it stops.
            trainer.limit_val_batches = 0

    def _agreed(self, trainer: Any) -> bool:
        if trainer.world_size == 1:
            return self._asked
        return bool(trainer.strategy.reduce_boolean_decision(self._asked, all=False))

    def _handle(self, number: int, frame: Any) -> None:
        if self._asked:
            # The third one is not ours.
            signal.signal(number, signal.SIG_DFL)
            self.stopped = True
            raise KeyboardInterrupt
        self._asked = True

    def _install(self) -> None:
        for number in self._previous:
            signal.signal(number, self._handle)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
