"""Averaged weights."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import EMAWeightAveraging


class Averages(EMAWeightAveraging):
    """An exponential average of the weights: what is validated, shown, kept as the checkpoint's and tested.

    Lightning's own has the average in its place while batches are validated, and no longer when a task looks
    at what the model says, or a callback draws it. Name it behind callbacks that shall see the average.

    Args:
        decay: how much of the average is left after an optimizer step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(decay=decay)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """It is in its place already."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """It stays until all have seen it."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
