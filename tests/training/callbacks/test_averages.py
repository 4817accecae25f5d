"""Averaged weights are what is validated, looked at, kept and tested; training goes on with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule

from mannlab.registry import get
from mannlab.training.callbacks import Averages, Checkpoints, Pictures
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


def counted(saved: dict[str, Any], part: str) -> dict[str, Any]:
    names = ("phase", "lowest", "waited", "validations")
    return {name: saved[part][f"model.memory.{name}"].item() for name in names}


@pytest.mark.usefixtures("silent")
def test_a_linear_start_ends_as_without_averages(tmp_path: Path, settings: Any) -> None:
    memory = {"name": "memory_network", "slots": 6, "width": 4, "hops": 1, "linear_start": 4, "patience": 3}
    steps = {"memory": memory, "optimizer.lr": 0.0}
    for name, stop in (("during", 11), ("last", 12), ("after", 14)):
        train(settings({**steps, "trainer.max_steps": stop}), tmp_path / "plain" / name)
        train(changed(settings, {**steps, "trainer.max_steps": stop}), tmp_path / name)
        plain, saved = (
            read_checkpoint(folder / name / "checkpoints" / "last.ckpt")
            for folder in (tmp_path / "plain", tmp_path)
        )
        # Nothing is learnt at a rate of 0: an average of equal weights is the weights.
        wanted = counted(plain, "state_dict")
        assert wanted["phase"] == {"during": 1, "last": 2, "after": 0}[name]
        assert counted(saved, "current_model_state") == wanted
        assert counted(saved, "state_dict") == wanted


def test_running_statistics_are_averaged_and_counts_are_not() -> None:
    class Norm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))
            self.register_buffer("batches", torch.tensor(0))
            self.register_buffer("begun", torch.tensor(False))

    class Trainer:
        global_step = 0

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Norm()

    module, averages, trainer = Module(), Averages(decay=0.5), Trainer()
    averages.setup(trainer, module, "fit")
    for step in (1, 2):
        trainer.global_step = step
        module.norm.mean.fill_(4.0 * step)
        module.norm.batches.fill_(step)
        averages.on_train_batch_end(trainer, module, None, None, step)
    averages.on_validation_start(trainer, module)
    assert (float(module.norm.mean), int(module.norm.batches), bool(module.norm.begun)) == (6.0, 2, False)
    module.norm.batches.fill_(7)
    module.norm.begun.fill_(True)
    averages.on_validation_end(trainer, module)
    assert (float(module.norm.mean), int(module.norm.batches), bool(module.norm.begun)) == (8.0, 7, True)


def test_the_last_pictures_are_of_the_average(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(Pictures, "draw", lambda self, t, module, stage: drawn.append(first_weight(module)))
    config = settings({"callbacks.pictures": {"_target_": "mannlab.training.callbacks.Pictures"}})
    config["callbacks"] |= AVERAGES
    train(config, tmp_path / "run")
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    name = next(key for key in saved["state_dict"] if key.startswith("model."))
    assert not torch.equal(saved["state_dict"][name], saved["current_model_state"][name])
    assert len(drawn) == 2
    assert torch.equal(drawn[-1], saved["state_dict"][name])


def test_it_comes_before_checkpoints_are_written() -> None:
    """Lightning moves checkpoints behind all other callbacks; averages are none."""
    from lightning.pytorch.callbacks import Checkpoint

    assert issubclass(Checkpoints, Checkpoint)
    assert not issubclass(Averages, Checkpoint)
