"""The options of a run, where runs are compared by them: TensorBoard's HPARAMS tab, and services."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from mannlab.training.loggers import show_options
from mannlab.trees import flat

GROUPS = ("controller", "memory", "task", "model", "optimizer", "batch_size", "seed")


class HyperParameters(Callback):
    """Register the run's options, so that runs and their final metrics can be compared in one table."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            show_options(trainer.loggers, self.options)


def options_table(config: dict[str, Any]) -> dict[str, Any]:
    """The options worth comparing, by dotted key, as plain values."""
    return {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flat({group: config[group] for group in GROUPS if group in config}).items()
    }
