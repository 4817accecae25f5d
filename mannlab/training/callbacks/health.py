"""Curves of how well memories work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning.pytorch.callbacks import Callback

from mannlab.contracts import Batch
from mannlab.model.health import Health
from mannlab.model.hosted import watched
from mannlab.training.aside import aside
from mannlab.training.data import place
from mannlab.training.tables import divided


class MemoryHealth(Callback):
    """At validations and at the test, log how sharply heads look, how much they use, and what gates say.

    It runs the model once more, on a few sequences of the main split, on the first rank alone; training steps
    cost nothing more. See ``mannlab.model.health`` for what is measured.

    Args:
        every_n_validations: look at each this many validations.
        samples: how many sequences to look at.
        steps: and how many steps of each, from the first on.
    """

    def __init__(self, every_n_validations: int = 1, samples: int = 8, steps: int = 512) -> None:
        self.every = max(1, every_n_validations)
        self.samples, self.steps = max(1, samples), max(1, steps)
        self._validations = 0

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self._validations % self.every == 0:
            self._log(trainer, pl_module, "val")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: Any, pl_module: Any, stage: str) -> None:
        # One rank looks, and cannot run a model that wants all of them.
        if not trainer.is_global_zero or divided(pl_module.model):
            return
        split = pl_module.task.splits(stage)[0]
        found = measured(pl_module, shortened(trainer.datamodule.first(split, self.samples), self.steps))
        values = {f"{stage}_memory/{name}": value for name, value in found.items()}
        pl_module.results |= values
        if values:
            pl_module.write(values, trainer.global_step)


def measured(pl_module: Any, batch: Batch) -> dict[str, float]:
    """Health of all memories on a batch, by name; leaves the model and the random state as they were."""
    health = Health()
    with aside(pl_module), watched(pl_module.model, health):
        pl_module(place(batch, pl_module.device, pl_module.dtype), trace=health)
    return {
        f"{name}{suffix}": value
        for memory, suffix in pl_module.model.named_memories()
        for name, value in health.of(memory).items()
    }


def shortened(batch: Batch, steps: int) -> Batch:
    """The first steps of a batch."""
    if batch.targets.shape[1] <= steps:
        return batch
    return replace(
        batch,
        inputs={key: tensor[:, :steps] for key, tensor in batch.inputs.items()},
        targets=batch.targets[:, :steps],
        scored=batch.scored[:, :steps],
        valid=None if batch.valid is None else batch.valid[:, :steps],
    )
