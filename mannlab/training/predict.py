"""Answers of a trained model to texts of a user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mannlab.contracts import Task
from mannlab.errors import ConfigError
from mannlab.model import assemble
from mannlab.model.decode import Decoder
from mannlab.registry import get
from mannlab.training.checkpoints import check_data, load_weights, read_checkpoint
from mannlab.training.environment import quiet, set_threads


class Predictor:
    """A run's model and task, ready to answer.

    Args:
        config: the run's configuration, perhaps with other options of the task.
        checkpoint: a ``.ckpt`` file.

    Raises:
        ConfigError: the task has no texts to answer.
        CheckpointError: missing, damaged, refused, or not fitting.
    """

    def __init__(self, config: Mapping[str, Any], checkpoint: Path) -> None:
        quiet()
        set_threads(config)
        name = str(config["task"].get("name"))
        # Before data is read and weights are loaded.
        if get("task", name).predict is Task.predict:  # type: ignore[attr-defined]
            raise ConfigError(
                f"task={name} has no texts to answer.",
                "Only runs of tasks such as translation can predict; eval measures any run.",
            )
        saved = read_checkpoint(checkpoint)
        model, self.task = assemble(config)
        check_data(saved, self.task, checkpoint)
        load_weights(model, saved, checkpoint, config)
        trainer = config.get("trainer") or {}
        on_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        model = model.to("cuda" if on_gpu else "cpu")
        self._generate = Decoder(model, int(config.get("eval_batch_size") or 64))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """One answer for each text."""
        return self.task.predict(self._generate, texts)
