from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import LambdaCallback
from torch import nn

from mannlab.errors import CheckpointError, ConfigError, MannlabError
from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.module import MannModule
from mannlab.training.run import train
from mannlab.training.saved import load

pytestmark = pytest.mark.usefixtures("silent")


def last(run: Path) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def same(one: Any, two: Any) -> bool:
    """Equal to the last bit, through nested containers of tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)


def test_a_run_leaves_what_it_promises(tmp_path: Path, settings: Any) -> None:
    summary = train(settings({"test": True}), tmp_path / "run")
    assert summary["status"] == "completed"
    assert (summary["steps"], summary["sequences"]) == (6, 24)
    assert (summary["task"], summary["controller"], summary["memory"]) == ("copy", "lstm", "dense")
    for split in ("val", "val_length_5", "test", "test_length_5"):
        assert {f"{split}/bit_errors_per_sequence", f"{split}/loss_nats"} <= summary["metrics"].keys()
    assert summary["objective"]["value"] == summary["metrics"]["test/cost_bits_per_sequence"]
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert kept["metrics"] == summary["metrics"]
    assert kept["config"]["seed"] == 3
    left = {
        str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()
    }
    assert left == {"summary.json", "config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}


def test_the_seed_reproduces_a_run_bit_for_bit(tmp_path: Path, settings: Any) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(settings({"seed": seed}), tmp_path / name)
    a, b, c = (last(tmp_path / name)["state_dict"] for name in "abc")
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.parametrize("stop", [3, 4])
@pytest.mark.parametrize("extra", [{}, {"trainer.accumulate_grad_batches": 2}])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, settings: Any, stop: int, extra: Any
) -> None:
    def run(name: str, steps: int, more: dict[str, Any]) -> dict[str, Any]:
        return train(settings({"trainer.max_steps": steps, **extra, **more}), tmp_path / name)

    whole = run("whole", 8, {})
    first = run("first", stop, {})
    second = run("second", 8, {"ckpt_path": str(tmp_path / "first")})
    assert first["sequences"] < second["sequences"] == whole["sequences"]
    assert second["metrics"] == whole["metrics"]
    assert second["resumed_from"] == str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    one, two = last(tmp_path / "whole"), last(tmp_path / "second")
    for key in ("state_dict", "optimizer_states", "random", "global_step", "StreamData"):
        assert same(one[key], two[key]), key
    assert last(tmp_path / "first")["global_step"] == stop


def test_a_resumed_run_draws_the_same_dropout(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mannlab.training import run as module

    plain = module.assemble

    def with_dropout(config: Any) -> Any:
        model, task = plain(config)
        model.head.register_forward_pre_hook(
            lambda m, args: (nn.functional.dropout(args[0], 0.5, m.training),)
        )
        return model, task

    monkeypatch.setattr(module, "assemble", with_dropout)
    train(settings({"trainer.max_steps": 8}), tmp_path / "whole")
    train(settings({"trainer.max_steps": 4}), tmp_path / "first")
    train(settings({"trainer.max_steps": 8, "ckpt_path": str(tmp_path / "first")}), tmp_path / "second")
    assert same(last(tmp_path / "whole")["state_dict"], last(tmp_path / "second")["state_dict"])


IN_BETWEEN = {"trainer.accumulate_grad_batches": 2, "trainer.val_check_interval": 3}
BYTES = {"name": "language_modelling", "source": "pydoc", "level": "byte", "length": 6, "eval_lanes": 4}
HOPS = {"name": "memory_network", "slots": 6, "width": 4, "hops": 1, "linear_start": 3, "noise": 0.3}
NORMED = {"name": "product_key", "slots": 25, "width": 4, "heads": 1, "knn": 2, "key_width": 4}
PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0}
AVERAGE = {"_target_": "mannlab.training.callbacks.Averages", "decay": 0.5}


@pytest.mark.parametrize(
    "extra",
    [
        {"model.dropout": 0.5},
        {"task": BYTES, "trainer.limit_val_batches": 2},
        {"memory": HOPS},
        {"memory": NORMED},
        {"scheduler": PLATEAU, "optimizer.lr": 0.5},
        {"memory": HOPS, "callbacks.average": AVERAGE},
    ],
    ids=["dropout", "text", "phase", "statistics", "schedule", "average"],
)
def test_what_is_saved_between_accumulated_gradients_goes_on_exactly(
    tmp_path: Path, settings: Any, extra: Any
) -> None:
    """A validation after batch 3 saves in the middle of step 2."""

    def stop(trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index == 3:
            raise KeyboardInterrupt

    def run(name: str, more: dict[str, Any], also: Any = ()) -> None:
        train(settings({"trainer.max_steps": 6, **IN_BETWEEN, **extra, **more}), tmp_path / name, also)

    run("whole", {})
    with pytest.raises(KeyboardInterrupt):
        run("first", {}, [LambdaCallback(on_train_batch_start=stop)])
    assert last(tmp_path / "first")["global_step"] == 1
    run("second", {"ckpt_path": str(tmp_path / "first")})
    one, two = last(tmp_path / "whole"), last(tmp_path / "second")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random", "global_step", "StreamData"):
        assert same(one[key], two[key]), key
    assert same(one.get("carried"), two.get("carried"))


def test_last_finds_the_sibling_and_keeps_its_best(tmp_path: Path, settings: Any) -> None:
    train(settings(), tmp_path / "a")
    summary = train(
        settings({"ckpt_path": "last", "trainer.max_steps": 7, "trainer.val_check_interval": 100}),
        tmp_path / "b",
    )
    assert summary["steps"] == 7
    best = (read_checkpoint(tmp_path / name / "checkpoints" / "best.ckpt") for name in "ab")
    assert same(*(each["state_dict"] for each in best))


SHORT = {"trainer.max_steps": 5, "trainer.val_check_interval": 100, "test": True}  # without a validation


def best_of(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def test_the_best_of_another_run_in_the_folder_is_not_tested(tmp_path: Path, settings: Any) -> None:
    clean = train(settings({**SHORT, "seed": 4}), tmp_path / "clean")
    train(settings(), tmp_path / "a")
    assert best_of(tmp_path / "a").is_file()
    again = train(settings({**SHORT, "seed": 4}), tmp_path / "a")
    assert again["metrics"] == clean["metrics"]
    assert not best_of(tmp_path / "a").exists()
    # Without the callback nothing removes it.
    train(settings(), tmp_path / "b")
    again = train(settings({**SHORT, "seed": 4, "callbacks.checkpoints": None}), tmp_path / "b")
    assert again["metrics"] == clean["metrics"]


def test_a_run_that_goes_on_in_its_own_folder_keeps_its_best(tmp_path: Path, settings: Any) -> None:
    folder = tmp_path / "a"
    train(settings({"trainer.max_steps": 3}), folder)
    before = read_checkpoint(best_of(folder))
    train(settings({**SHORT, "ckpt_path": str(folder)}), folder)
    assert same(read_checkpoint(best_of(folder))["state_dict"], before["state_dict"])
    train(settings({**SHORT, "ckpt_path": str(best_of(folder)), "trainer.max_steps": 4}), folder)
    assert same(read_checkpoint(best_of(folder))["state_dict"], before["state_dict"])


def test_a_run_that_was_killed_before_its_best_was_written_has_it(tmp_path: Path, settings: Any) -> None:
    folder = tmp_path / "a"
    train(settings({"trainer.max_steps": 3}), folder)
    before = last(folder)
    best_of(folder).unlink()
    train(settings({**SHORT, "ckpt_path": str(folder)}), folder)
    assert same(read_checkpoint(best_of(folder))["state_dict"], before["state_dict"])


@pytest.mark.parametrize("kind", ["last", "best"])
def test_the_best_of_another_memory_is_not_tested(tmp_path: Path, settings: Any, kind: str) -> None:
    few = {"memory.name": "lrua", "trainer.max_steps": 3}
    train(settings(few), tmp_path / "a")
    ckpt = tmp_path / "a" / "checkpoints" / f"{kind}.ckpt"
    more = {**few, **SHORT, "memory.slots": 24, "ckpt_path": str(ckpt)}
    elsewhere = train(settings(more), tmp_path / "c")
    here = train(settings(more), tmp_path / "a")
    assert here["metrics"] == elsewhere["metrics"]
    # Where it goes on from stays.
    assert best_of(tmp_path / "a").is_file() == (kind == "best")


def test_resuming_says_where_and_whether_anything_is_left(
    tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "a")
    assert "Goes on" not in caplog.text
    with caplog.at_level("INFO"):
        train(settings({"ckpt_path": str(tmp_path / "a"), "trainer.max_steps": 4}), tmp_path / "b")
    assert f"Goes on from {tmp_path / 'a' / 'checkpoints' / 'last.ckpt'} at step 3." in caplog.text
    with pytest.raises(CheckpointError, match=r"step 3, and trainer\.max_steps=2: nothing is left to train"):
        train(settings({"ckpt_path": str(tmp_path / "a"), "trainer.max_steps": 2}), tmp_path / "c")


def test_a_run_goes_on_with_more_slots(
    tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    few = {"memory.name": "lrua", "trainer.max_steps": 3}
    train(settings(few), tmp_path / "a")
    more = {**few, "memory.slots": 24, "trainer.max_steps": 5, "ckpt_path": str(tmp_path / "a")}
    with caplog.at_level("INFO"):
        train(settings(more), tmp_path / "b")
    assert "goes on with memory.slots=24 (before: 8)" in caplog.text
    assert last(tmp_path / "b")["hyper_parameters"]["memory"]["slots"] == 24
    assert load(tmp_path / "b").model.memory.slots == 24
    # What is learned of each row has no weights for new ones.
    train(settings({**few, "memory.init": "learned"}), tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"do not fit:\n  memory\.slots: 8 in the checkpoint, 24"):
        train(settings({**more, "memory.init": "learned", "ckpt_path": str(tmp_path / "c")}), tmp_path / "d")


def test_what_is_refused_in_a_run_s_own_folder_leaves_it_as_it_was(tmp_path: Path, settings: Any) -> None:
    folder = tmp_path / "a"
    train(settings(), folder)
    before = {name: (folder / name).read_text() for name in ("config.yaml", "summary.json")}
    wrong = settings({"ckpt_path": str(folder), "trainer.max_steps": 9, "task.bits": 5})
    with pytest.raises(CheckpointError, match=r"task\.bits"):
        train(wrong, folder)
    assert before == {name: (folder / name).read_text() for name in before}


def test_a_run_that_goes_on_in_its_own_folder_by_a_relative_path_keeps_its_rows(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {"logger": {"csv": {"_target_": "mannlab.training.loggers.Table"}}}
    train(settings(rows), Path("a"))
    before = (tmp_path / "a" / "metrics.csv").read_text().splitlines()
    summary = train(settings({**rows, "ckpt_path": "a", "trainer.max_steps": 9}), Path("a"))
    assert len((tmp_path / "a" / "metrics.csv").read_text().splitlines()) > len(before)
    assert summary["resumed_from"] == str(tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["trainer"]["max_steps"] == 9


def test_a_run_that_is_taken_up_as_it_was_keeps_its_configuration(tmp_path: Path, settings: Any) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "a")
    before = (tmp_path / "a" / "config.yaml").read_text()
    again = settings({"trainer.max_steps": 3, "ckpt_path": str(tmp_path / "a"), "overrides": ["seed=3"]})
    train(again, tmp_path / "a")
    assert (tmp_path / "a" / "config.yaml").read_text() == before
    train({**again, "trainer": {**again["trainer"], "max_steps": 6}}, tmp_path / "a")
    kept = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert kept["trainer"]["max_steps"] == 6
    assert "overrides" not in kept


def test_a_limit_that_is_no_number_is_named_when_a_run_goes_on(tmp_path: Path, settings: Any) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "a")
    with pytest.raises(MannlabError, match=r"trainer\.max_steps: 'ten' is not a whole number"):
        train(settings({"trainer.max_steps": "ten", "ckpt_path": str(tmp_path / "a")}), tmp_path / "b")


def test_the_time_of_all_attempts_is_counted(tmp_path: Path, settings: Any) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "a")
    path = tmp_path / "a" / "checkpoints" / "last.ckpt"
    saved = read_checkpoint(path)
    assert 0 < saved["seconds"] < 1000
    torch.save({**saved, "seconds": 1000.0}, path)
    assert 1000 < train(settings({"ckpt_path": str(tmp_path / "a")}), tmp_path / "b")["wall_seconds"] < 1900


def test_without_a_test_the_best_validation_is_what_counts(tmp_path: Path, settings: Any) -> None:
    # A rate that ruins the model after its first validation.
    falling = settings({"optimizer.lr": 3.0, "trainer.gradient_clip_val": None, "trainer.max_steps": 12})
    summary = train(falling, tmp_path / "run")
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    kept = best["callbacks"]["Checkpoints"]["best_value"]
    assert summary["objective"]["value"] == kept
    assert kept < summary["metrics"][f"val/{summary['objective']['metric']}"]


def test_a_schedule_that_waits_for_a_metric_goes_on_exactly(tmp_path: Path, settings: Any) -> None:
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 1, "threshold": 1e9}
    config = {"scheduler": plateau, "trainer.val_check_interval": 2}
    train(settings({**config, "trainer.max_steps": 10}), tmp_path / "whole")
    train(settings({**config, "trainer.max_steps": 4}), tmp_path / "first")
    going = {**config, "ckpt_path": str(tmp_path / "first"), "trainer.max_steps": 10}
    train(settings(going), tmp_path / "second")
    whole, second = (last(tmp_path / name) for name in ("whole", "second"))
    assert whole["lr_schedulers"] == second["lr_schedulers"]
    assert whole["optimizer_states"][0]["param_groups"][0]["lr"] < 3e-3
    assert same(whole["state_dict"], second["state_dict"])


def test_resuming_something_else_is_refused(tmp_path: Path, settings: Any) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"memory\.slots: 8 in the checkpoint, 9 here"):
        train(settings({"ckpt_path": str(tmp_path / "a"), "memory.slots": 9}), tmp_path / "b")
    kept = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert kept["status"] == "failed"
    assert "memory.slots" in kept["error"]


def test_no_memory_and_no_callbacks_run_too(tmp_path: Path, settings: Any) -> None:
    summary = train(settings({"memory": {"name": "none"}, "callbacks": {}, "test": True}), tmp_path / "run")
    assert summary["metrics"]["test/loss_nats"] > 0
    assert not (tmp_path / "run" / "checkpoints").exists()


SPARSE = {"name": "sparse", "slots": 64, "width": 4, "heads": 2}
TINY = {"slots": 8, "width": 4}
ROWS = ("dense", "lrua", "dnc", "memory_network")


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("memory", [{"name": "none"}, SPARSE, *({"name": name, **TINY} for name in ROWS)])
def test_precisions(tmp_path: Path, settings: Any, precision: str, memory: dict[str, Any]) -> None:
    summary = train(settings({"trainer.precision": precision, "memory": memory}), tmp_path / "run")
    assert summary["status"] == "completed"


@pytest.mark.parametrize("init", ["zero", "learned"])
def test_sparse_memory_through_accumulation_and_validation(tmp_path: Path, settings: Any, init: str) -> None:
    """Two half batches equal one, with validation in between; nothing is left over from either."""
    memory = SPARSE | {"init": init}
    changes = {"memory": memory, "trainer.precision": "64-true", "optimizer.eps": 1e-4}
    halves = {"batch_size": 2, "trainer.accumulate_grad_batches": 2, "trainer.val_check_interval": 2}
    train(settings(changes), tmp_path / "whole")
    train(settings(changes | halves), tmp_path / "halves")
    whole, half = (last(tmp_path / name)["state_dict"] for name in ("whole", "halves"))
    for name, weight in whole.items():
        torch.testing.assert_close(half[name], weight, rtol=1e-6, atol=1e-8)


def test_a_memory_s_metrics_are_logged(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    written: dict[str, float] = {}
    monkeypatch.setattr(MannModule, "write", lambda self, values, step: written.update(values))
    train(settings({"memory": SPARSE | {"index": "lsh"}}), tmp_path / "run")
    assert 0 <= written["memory/recall_at_4_percent"] <= 100


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 6},
        {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0, "threshold": 1e9},
    ],
)
def test_schedulers_change_the_rate_by_steps(tmp_path: Path, settings: Any, scheduler: Any) -> None:
    train(settings({"scheduler": scheduler}), tmp_path / "run")
    assert last(tmp_path / "run")["optimizer_states"][0]["param_groups"][0]["lr"] < 9e-4


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 0, "batch_size"),
        ("workers", -1, "workers"),
        ("seed", "x", "seed"),
        ("threads", 0, "threads"),
        ("trainer.accelerator", "abacus", "trainer"),
        ("trainer.nonsense", 1, r"trainer\.nonsense: this is no option"),
        ("trainer.logger", 1, r"trainer\.logger: this is set by the run"),
        ("trainer.limit_train_batches", 3, r"trainer\.limit_train_batches"),
        ("trainer.limit_train_batches", 1, r"trainer\.limit_train_batches: 1 is not allowed"),
        ("trainer.min_epochs", 2, r"trainer\.min_epochs: 2 is not allowed"),
        ("optimizer._target_", "torch.optim.Nope", r"optimizer\._target_"),
        ("ckpt_path", "last", "no earlier run"),
        ("trainer.max_time", "00:01:00", r"trainer\.max_time: '00:01:00' is not a length of time"),
        ("trainer.max_steps", "ten", r"trainer\.max_steps: 'ten' is not a whole number"),
        ("optimizer.lr", "big", r"optimizer\.lr: 'big' is not a number"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, settings: Any, key: str, value: Any, message: str) -> None:
    with pytest.raises(MannlabError, match=message):
        train(settings({key: value}), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((MannlabError, OSError), match="file"):
        train(settings(), tmp_path / "file" / "run")


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, []

    def full(content: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) > 1:
            Path(target).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(content, target)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MannlabError, match="No space left"):
        train(settings(), tmp_path / "run")
    assert last(tmp_path / "run")["global_step"] == 3
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_config_errors_are_config_errors(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(ConfigError, match="memory"):
        train(settings({"memory": {"name": "dens"}}), tmp_path / "run")
