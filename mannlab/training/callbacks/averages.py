"""Averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from mannlab.contracts import Memory


class Averages(EMAWeightAveraging):
    """An exponential average of the weights: what is validated, shown, kept as the checkpoint's and tested.

    Lightning's own has the average in its place while batches are validated, and no longer when a task looks
    at what the model says, or a callback draws it. Name it behind callbacks that shall see the average.

    Running statistics are averaged as the weights are that they belong to. What training counts, and what a
    memory keeps of its own (see :func:`kept`), are its state and no weights: there is one of it, which
    validations see and change.

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

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._share(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def _swap_models(self, pl_module: Any) -> None:
        self._share(pl_module)
        super()._swap_models(pl_module)

    def _copy_average_to_current(self, pl_module: Any) -> None:
        self._share(pl_module)
        super()._copy_average_to_current(pl_module)

    def _share(self, pl_module: Any) -> None:
        """Let the copy have the state that is not averaged, whatever was made of it there."""
        if self._average_model is not None:
            for copied, own in zip(kept(self._average_model.module), kept(pl_module), strict=True):
                copied.copy_(own)


def kept(model: nn.Module) -> Iterator[Tensor]:
    """Buffers that are no running statistics: whole numbers and flags, and a memory's own.

    A memory may change these in ``end_validation``; statistics of its parts are the buffers of norms.
    """
    for module in model.modules():
        for buffer in module.buffers(recurse=False):
            if isinstance(module, Memory) or not buffer.is_floating_point():
                yield buffer


def put_averages(trainer: Any, pl_module: Any) -> None:
    """At the end of training: any average in the weights' place, for a callback whose turn comes before."""
    for callback in trainer.callbacks:
        if isinstance(callback, Averages):
            callback.on_train_end(trainer, pl_module)
