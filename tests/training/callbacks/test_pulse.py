"""Signs of life, and word to stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mannlab.contracts import Objective
from mannlab.training.callbacks.pulse import Pulse
from mannlab.training.callbacks.stop import GracefulStop


def trainer(step: int = 10, callbacks: Any = (), first: bool = True) -> Any:
    return SimpleNamespace(
        global_step=step,
        max_steps=100,
        is_global_zero=first,
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        datamodule=SimpleNamespace(consumed=step * 4),
        callbacks=list(callbacks),
    )


def module(value: float | None = None) -> Any:
    task = SimpleNamespace(objective=Objective("errors", "max"))
    results = {} if value is None else {"val/errors": value}
    return SimpleNamespace(task=task, objective="val/errors", results=results)


def said(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "progress.json").read_text()))


def test_what_is_said(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, every_seconds=0)
    pulse.on_train_start(trainer(10), module())
    assert (said(tmp_path)["step"], said(tmp_path)["value"], said(tmp_path)["left"]) == (10, None, None)
    pulse.on_train_batch_end(trainer(20), module())
    found = said(tmp_path)
    assert (found["phase"], found["step"], found["total"]) == ("train", 20, 100)
    assert found["rate"] > 0
    assert found["left"] > 0
    pulse.on_validation_end(trainer(20), module(0.5))
    pulse.on_validation_end(trainer(30), module(0.25))
    found = said(tmp_path)
    assert (found["metric"], found["mode"], found["value"]) == ("errors", "max", 0.25)
    assert found["history"] == [[20, 0.5], [30, 0.25]]


def test_a_resumed_run_remembers(tmp_path: Path) -> None:
    before = Pulse(tmp_path)
    for step, value in ((10, 0.5), (20, 0.4), (30, 0.3)):
        before.on_validation_end(trainer(step), module(value))
    after = Pulse(tmp_path)
    after.on_train_start(trainer(20), module())
    assert after.history == [(10, 0.5), (20, 0.4)]
    (tmp_path / "progress.json").write_text("{")
    damaged = Pulse(tmp_path)
    damaged.on_train_start(trainer(20), module())
    assert damaged.history == []


def test_not_too_often_and_by_one_process_only(tmp_path: Path) -> None:
    Pulse(tmp_path).on_train_start(trainer(first=False), module())
    assert list(tmp_path.iterdir()) == []
    pulse = Pulse(tmp_path, every_seconds=60)
    pulse.on_train_start(trainer(10), module())
    pulse.on_train_batch_end(trainer(20), module())
    assert said(tmp_path)["step"] == 10


def test_word_to_stop_comes_as_a_signal_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    pulse = Pulse(tmp_path, every_seconds=0)
    pulse.on_train_batch_end(trainer(), module())
    assert raised == []
    (tmp_path / "stop").write_text("pruned")
    pulse.on_train_batch_end(trainer(), module())
    pulse.on_train_batch_end(trainer(), module())
    assert raised == [signal.SIGTERM]


def test_a_run_that_was_told_already_is_not_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    stop = GracefulStop()
    stop._handle(signal.SIGTERM, None)
    (tmp_path / "stop").write_text("interrupted")
    Pulse(tmp_path, every_seconds=0).on_train_batch_end(trainer(callbacks=[stop]), module())
    assert raised == []


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path) -> None:
    Pulse(tmp_path / "nowhere").on_train_start(trainer(), module())
