"""A memory that trains in phases is told of each validation, and a checkpoint is of one phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab.training.checkpoints import find_checkpoint, read_checkpoint
from mannlab.training.run import train

MEMORY = {"name": "memory_network", "slots": 6, "width": 4, "hops": 1, "linear_start": 9}


def run(settings: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    config = settings({"memory": MEMORY, "optimizer.lr": 0.0, **changes})
    train(config, folder)
    return read_checkpoint(find_checkpoint(folder, "last"))["state_dict"]


def phase(state: dict[str, Any]) -> int:
    return int(state["model.memory.phase"])


@pytest.mark.usefixtures("silent")
def test_linear_start_ends_with_training_alone(settings: Any, tmp_path: Path) -> None:
    """Nothing is learnt at a rate of 0: the second validation, at step 6, is no better than the first."""
    early = run(settings, tmp_path / "early", **{"trainer.max_steps": 5})
    assert phase(early) == 1
    assert torch.isfinite(early["model.memory.lowest"])
    at = run(settings, tmp_path / "at", **{"trainer.max_steps": 6})
    assert phase(at) == 2, "saved with the validation that ends it: still the linear one"
    late = run(settings, tmp_path / "late", **{"trainer.max_steps": 8})
    assert phase(late) == 0


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("stop", [4, 6])
def test_it_goes_through_a_resume(settings: Any, tmp_path: Path, stop: int) -> None:
    """The phase, the lowest loss and the empty slots that are drawn."""
    memory = MEMORY | {"linear_start": 2, "noise": 0.3}
    common = {"memory": memory, "optimizer.lr": 0.01}
    whole = run(settings, tmp_path / "whole", **common, **{"trainer.max_steps": 8})
    run(settings, tmp_path / "first", **common, **{"trainer.max_steps": stop})
    resumed = {"trainer.max_steps": 8, "ckpt_path": str(tmp_path / "first")}
    second = run(settings, tmp_path / "second", **common, **resumed)
    assert phase(second) == 0
    for name, tensor in whole.items():
        assert torch.equal(second[name], tensor), name
