"""What a resumed run is given now wins over what its checkpoint restores."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR

from mannlab.errors import ConfigError
from mannlab.training.retuned import Retuned, tuning
from mannlab.training.run import train

COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 6}
SCHEDULES = {
    "cosine": (CosineAnnealingLR, {"T_max": 20}, {"T_max": 30}),
    "warmup": (LinearLR, {"start_factor": 0.1, "total_iters": 4}, {"start_factor": 0.1, "total_iters": 40}),
    "steps": (MultiStepLR, {"milestones": [2, 9]}, {"milestones": [5]}),
    "one_cycle": (OneCycleLR, {"max_lr": 0.1, "total_steps": 20}, {"max_lr": 0.2, "total_steps": 30}),
}


def make(optimizer: dict[str, Any], schedule: type[LRScheduler], options: dict[str, Any]) -> Any:
    stepper = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], **optimizer)
    return stepper, schedule(stepper, **options)


def walk(stepper: Any, scheduler: Any, steps: int) -> None:
    for _ in range(steps):
        stepper.step()
        scheduler.step()


def rates(stepper: Any, scheduler: Any, steps: int) -> list[float]:
    """The learning rates of the steps that follow, and the betas, which some schedules change."""
    found = []
    for _ in range(steps):
        found += [stepper.param_groups[0]["lr"], *stepper.param_groups[0]["betas"]]
        walk(stepper, scheduler, 1)
    return found


def resumed(
    old: tuple[dict[str, Any], type[LRScheduler], dict[str, Any]],
    new: tuple[dict[str, Any], type[LRScheduler], dict[str, Any]],
    steps: int,
) -> Any:
    """What steps on as a checkpoint of ``old`` and the configuration of ``new`` say."""
    configs = [
        {"optimizer": options, "scheduler": {"_target_": schedule.__name__, **its}}
        for options, schedule, its in (old, new)
    ]
    retuned = Retuned(*map(tuning, configs))
    first, its = make(*old)
    walk(first, its, steps)
    checkpoint = {"optimizer_states": [first.state_dict()], "lr_schedulers": [its.state_dict()]}
    stepper, scheduler = make(*new)
    retuned.begin(stepper)
    retuned.leave_out(checkpoint)
    for target, name in ((stepper, "optimizer_states"), (scheduler, "lr_schedulers")):
        for state in checkpoint[name]:
            target.load_state_dict(state)
    retuned.apply(stepper, scheduler, steps)
    return stepper, scheduler


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_changed_schedule_stands_where_it_would_have_from_the_start(name: str) -> None:
    schedule, before, now = SCHEDULES[name]
    old, new = ({"lr": 0.01}, schedule, before), ({"lr": 0.03}, schedule, now)
    for changed in (({"lr": 0.01}, schedule, now), ({"lr": 0.03}, schedule, before), new):
        whole = make(*changed)
        walk(*whole, 7)
        assert rates(*resumed(old, changed, 7), 10) == pytest.approx(rates(*whole, 10), rel=1e-9)


def test_an_unchanged_one_is_restored_as_it_was() -> None:
    schedule, before, _ = SCHEDULES["cosine"]
    old = ({"lr": 0.01}, schedule, before)
    whole = make(*old)
    walk(*whole, 7)
    assert rates(*resumed(old, old, 7), 10) == rates(*whole, 10)


def test_another_schedule_takes_the_place_of_the_old_one() -> None:
    old, new = (({"lr": 0.01}, *SCHEDULES[name][:2]) for name in ("warmup", "cosine"))
    whole = make(*new)
    walk(*whole, 7)
    assert rates(*resumed(old, new, 7), 10) == pytest.approx(rates(*whole, 10), rel=1e-9)


def test_other_options_of_an_optimizer_leave_its_history_and_its_rate() -> None:
    schedule, its, _ = SCHEDULES["cosine"]
    old, new = ({"lr": 0.01}, schedule, its), ({"lr": 0.01, "weight_decay": 0.1}, schedule, its)
    stepper, _ = resumed(old, new, 7)
    same, _ = resumed(old, old, 7)
    assert stepper.param_groups[0]["weight_decay"] == 0.1
    assert stepper.param_groups[0]["lr"] == same.param_groups[0]["lr"] < 0.01


def saved(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def test_a_run_goes_on_along_a_longer_curve(tmp_path: Path, settings: Any, caplog: Any) -> None:
    first = {"scheduler": COSINE, "trainer.max_steps": 3, "optimizer.lr": 1e-3}
    longer = {"scheduler": COSINE | {"T_max": 12}, "trainer.max_steps": 9, "optimizer.lr": 2e-3}
    train(settings(first), tmp_path / "first")
    with caplog.at_level(logging.INFO, "mannlab"):
        train(settings(longer | {"ckpt_path": str(tmp_path / "first")}), tmp_path / "longer")
    train(settings(longer), tmp_path / "whole")
    (said,) = (line for line in caplog.messages if line.startswith("goes on with"))
    assert "optimizer.lr=0.002 (before: 0.001)" in said
    assert "scheduler.T_max=12 (before: 6)" in said
    longer, whole = (saved(tmp_path / name) for name in ("longer", "whole"))
    for checkpoint in (longer, whole):
        group = checkpoint["optimizer_states"][0]["param_groups"][0]
        assert group["lr"] == pytest.approx(2e-3 * (1 + math.cos(math.pi * 9 / 12)) / 2)
    steps = longer["optimizer_states"][0]["state"][0]["step"]
    assert steps == 9, "the history of the first run is kept"


def test_a_checkpoint_that_does_not_say_is_known_by_its_run_s_configuration(
    tmp_path: Path, settings: Any
) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "last.ckpt"
    torch.save({k: v for k, v in saved(tmp_path / "first").items() if k != "tuning"}, path)
    train(settings({"optimizer.lr": 5e-4, "ckpt_path": str(tmp_path / "first")}), tmp_path / "second")
    assert saved(tmp_path / "second")["optimizer_states"][0]["param_groups"][0]["lr"] == 5e-4


def test_an_optimizer_of_another_class_begins_without_a_history(tmp_path: Path, settings: Any) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "first")
    other = {"_target_": "mannlab.training.optimizers.GravesRMSprop", "lr": 1e-4}
    train(settings({"optimizer": other, "ckpt_path": str(tmp_path / "first")}), tmp_path / "second")
    (state,) = saved(tmp_path / "second")["optimizer_states"]
    assert set(state["state"][0]) == {"square", "mean", "delta"}
    assert state["param_groups"][0]["momentum"] == 0.9


def test_tables_keep_their_history(tmp_path: Path, settings: Any) -> None:
    memory = {"name": "product_key", "slots": 16, "width": 4, "heads": 1, "knn": 2, "key_width": 4}
    train(settings({"memory": memory, "trainer.max_steps": 3}), tmp_path / "first")
    other = {"_target_": "torch.optim.AdamW", "lr": 1e-4}
    more = {"memory": memory, "optimizer": other, "ckpt_path": str(tmp_path / "first")}
    train(settings(more), tmp_path / "second")
    (first,), (second,) = (saved(tmp_path / name)["optimizer_states"] for name in ("first", "second"))
    assert second["main"]["state"][0]["step"] == 3
    before, after = (state["rows"]["state"][0]["last"] for state in (first, second))
    assert (before.max(), after.max()) == (3, 6)
    assert (after >= before).all()


@pytest.mark.parametrize("switch", [{"centered": True}, {"momentum": 0.9}])
def test_an_optimizer_that_keeps_more_begins_without_a_history(
    tmp_path: Path, settings: Any, switch: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    plain = {"_target_": "torch.optim.RMSprop", "lr": 1e-4}
    train(settings({"optimizer": plain, "trainer.max_steps": 3}), tmp_path / "first")
    changes = {"optimizer": {**plain, **switch}, "ckpt_path": str(tmp_path / "first")}
    with caplog.at_level(logging.INFO, "mannlab"):
        train(settings(changes), tmp_path / "second")
    assert "begins without a history" in caplog.text
    assert saved(tmp_path / "second")["optimizer_states"][0]["state"][0]["step"] == 3


def test_one_that_waits_takes_the_place_of_a_curve(tmp_path: Path, settings: Any) -> None:
    train(settings({"scheduler": COSINE | {"T_max": 3}, "trainer.max_steps": 3}), tmp_path / "first")
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 9}
    train(settings({"scheduler": plateau, "ckpt_path": str(tmp_path / "first")}), tmp_path / "second")
    assert saved(tmp_path / "second")["optimizer_states"][0]["param_groups"][0]["lr"] == 3e-3


@pytest.mark.parametrize("key", ["T_max", "total_steps"])
def test_a_curve_without_an_end_is_refused(tmp_path: Path, settings: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"scheduler\.{key}: -1 is not allowed"):
        train(settings({"scheduler": COSINE | {key: -1}}), tmp_path / "run")


def test_a_schedule_that_waits_for_a_metric_begins_anew(tmp_path: Path, settings: Any) -> None:
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0, "threshold": 1e9}
    train(settings({"scheduler": plateau, "trainer.max_steps": 3}), tmp_path / "first")
    more = {"scheduler": plateau | {"factor": 0.5}, "ckpt_path": str(tmp_path / "first")}
    train(settings(more), tmp_path / "second")
    first, second = (saved(tmp_path / name) for name in ("first", "second"))
    assert second["lr_schedulers"][0]["factor"] == 0.5
    rates = [each["optimizer_states"][0]["param_groups"][0]["lr"] for each in (first, second)]
    assert rates[1] <= rates[0], "the rate goes on from where it was"
