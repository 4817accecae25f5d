"""Averaged weights are what is validated, looked at, kept and tested; training goes on with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from mannlab.registry import get
from mannlab.training.callbacks import Averages, Checkpoints
from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.run import train

AVERAGES = {"average": {"_target_": "mannlab.training.callbacks.Averages", "decay": 0.5}}


def first_weight(module: Any) -> torch.Tensor:
    return next(iter(module.parameters())).detach().clone()


class Looker(Callback):
    """What a callback in front of the averages sees."""

    def __init__(self) -> None:
        self.drawn: list[torch.Tensor] = []
        self.trained: list[torch.Tensor] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.drawn.append(first_weight(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.trained.append(first_weight(pl_module))


def changed(settings: Any, changes: dict[str, Any]) -> dict[str, Any]:
    config = settings(changes)
    config["callbacks"] = {**config["callbacks"], **AVERAGES}
    return config


def test_all_who_look_see_the_average(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    examined: list[torch.Tensor] = []
    task = get("task", "copy")
    examine = task.examine

    def look(self: Any, generate: Any, split: Any, draws: Any) -> Any:
        examined.append(first_weight(generate.model))
        return examine(self, generate, split, draws)

    monkeypatch.setattr(task, "examine", look)
    looker = Looker()
    config = changed(settings, {"trainer.max_steps": 6, "test": True})
    monkeypatch.setattr("mannlab.training.callbacks.Looker", lambda: looker, raising=False)
    node = {"_target_": "mannlab.training.callbacks.Looker"}
    config["callbacks"] = {"looker": node, **config["callbacks"]}
    train(config, tmp_path / "run")

    average = looker.trained[0]
    wanted = []
    for step, weight in enumerate(looker.trained[1:], start=2):
        average = 0.5 * average + 0.5 * weight
        if step % 3 == 0:
            wanted.append(average)
    assert not torch.allclose(wanted[-1], looker.trained[-1])
    for seen, each in zip(looker.drawn, wanted, strict=True):
        torch.testing.assert_close(seen, each)
    streams = len(examined) // (len(wanted) + 1)
    for seen, each in zip(examined[::streams], [*wanted, examined[-1]], strict=True):
        torch.testing.assert_close(seen, each)
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    name = next(key for key in saved["state_dict"] if key.startswith("model."))
    torch.testing.assert_close(saved["state_dict"][name], wanted[-1])
    torch.testing.assert_close(saved["current_model_state"][name], looker.trained[-1])


@pytest.mark.parametrize("steps", [4, 6])
def test_a_run_goes_on_exactly(tmp_path: Path, settings: Any, steps: int) -> None:
    """Also from the end of one that did not end with a validation."""
    train(changed(settings, {"trainer.max_steps": 9}), tmp_path / "whole")
    train(changed(settings, {"trainer.max_steps": steps}), tmp_path / "first")
    going = {"trainer.max_steps": 9, "ckpt_path": str(tmp_path / "first")}
    train(changed(settings, going), tmp_path / "second")
    whole, second = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "second")
    )
    for part in ("state_dict", "current_model_state"):
        for name, weight in whole[part].items():
            assert torch.equal(second[part][name], weight), name


def test_it_comes_before_checkpoints_are_written() -> None:
    """Lightning moves checkpoints behind all other callbacks; averages are none."""
    from lightning.pytorch.callbacks import Checkpoint

    assert issubclass(Checkpoints, Checkpoint)
    assert not issubclass(Averages, Checkpoint)
