"""Stop when the task is solved, and note after how many sequences."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch.callbacks import Callback

from mannlab.training.checkpoints import of_run

log = logging.getLogger(__name__)


class StopWhenSolved(Callback):
    """Stop early once the main validation metric reaches the task's ``objective.solved``.

    While a curriculum may still rise, nothing counts as solved. A run that takes up, in a folder of its own,
    one that had solved the task already does not stop for it.

    Args:
        enabled: stop; false only notes when it was solved.
        patience: this many validations in a row must reach it.

    Attributes:
        sequences_until_solved: sequences seen at the first of these validations, or None.
    """

    def __init__(self, enabled: bool = True, patience: int = 1) -> None:
        self.enabled, self.patience = enabled, max(1, patience)
        self.sequences_until_solved: int | None = None
        self._row = 0
        self._first = 0

    @property
    def solved(self) -> bool:
        return self.sequences_until_solved is not None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not (self.solved and self.enabled):
            return
        if of_run(trainer.ckpt_path, trainer.default_root_dir):
            # It was stopped in its test.
            trainer.should_stop = True
            return
        self.enabled = False
        if trainer.is_global_zero:
            log.info(
                "Solved already, after %s sequences: trains on to its end.",
                f"{self.sequences_until_solved:,}",
            )

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        objective = pl_module.task.objective
        value = pl_module.results.get(pl_module.objective)
        if objective.solved is None or value is None or trainer.datamodule.curriculum.running:
            return
        reached = value <= objective.solved if objective.mode == "min" else value >= objective.solved
        self._row = self._row + 1 if reached else 0
        if self._row == 1:
            self._first = trainer.datamodule.consumed
        if self._row >= self.patience and not self.solved:
            self.sequences_until_solved = self._first
        if self.solved and self.enabled:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"sequences": self.sequences_until_solved, "row": self._row, "first": self._first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sequences_until_solved = state_dict["sequences"]
        self._row, self._first = state_dict["row"], state_dict["first"]
