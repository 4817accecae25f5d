"""Options and final metrics in TensorBoard's HPARAMS tab."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from mannlab.training.checkpoints import flat
from mannlab.training.loggers import show_options

# Sorted before all else among the curves, and so on top.
MAIN = "main"
GROUPS = ("controller", "memory", "task", "model", "optimizer", "batch_size", "seed")


class HyperParameters(Callback):
    """Register the run's options, with its main metrics, so that runs can be compared in one table."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # The tab only knows metrics that were there when the options were written.
        metrics = {f"{MAIN}/{name}": math.nan for name in self._names(pl_module)}
        show_options(trainer.loggers, self.options)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.options, metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._write(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._write(trainer, pl_module)

    def _names(self, pl_module: Any) -> list[str]:
        objective = pl_module.task.objective
        splits = [pl_module.task.splits("val")[0], *pl_module.task.splits("test")]
        metrics = dict.fromkeys((objective.watched, objective.metric))
        return [f"{split.stream}/{metric}" for split in splits for metric in metrics]

    def _write(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        found = {
            f"{MAIN}/{name}": pl_module.results[name]
            for name in self._names(pl_module)
            if name in pl_module.results
        }
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_metrics(found, step=trainer.global_step)


def options_table(config: dict[str, Any]) -> dict[str, Any]:
    """The options worth comparing, by dotted key, as plain values."""
    return {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flat({group: config[group] for group in GROUPS if group in config}).items()
    }
