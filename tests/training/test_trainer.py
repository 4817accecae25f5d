from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mannlab.errors import ConfigError
from mannlab.training import trainer
from mannlab.training.run import train

pytestmark = pytest.mark.usefixtures("silent")


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(trainer.CUDAAccelerator, "is_available", lambda: False)
    monkeypatch.setattr(trainer.MPSAccelerator, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"there is no GPU here\.\nUse trainer=cpu\."):
        train(settings({"trainer.accelerator": "gpu"}), tmp_path / "run")


def test_an_apple_gpu_is_left_alone(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(trainer.CUDAAccelerator, "is_available", lambda: False)
    monkeypatch.setattr(trainer.MPSAccelerator, "is_available", lambda: True)
    made = trainer.make_trainer(settings({"trainer.accelerator": "auto"}), tmp_path, [], [])
    assert made.strategy.root_device.type == "cpu"
    for asked, why in (("mps", "no float64"), ("gpu", "no float64"), ("cuda", "no GPU here")):
        with pytest.raises(ConfigError, match=f"'{asked}' is not allowed: .*{why}"):
            trainer.make_trainer(settings({"trainer.accelerator": asked}), tmp_path, [], [])


def test_what_lightning_refuses_is_shown_without_every_option(tmp_path: Path, settings: Any) -> None:
    config = settings({"trainer.precision": "7"}) | {"overrides": ["seed=3", "trainer.precision=7"]}
    with pytest.raises(ConfigError) as caught:
        train(config, tmp_path / "run")
    assert caught.value.hint == "given: trainer.precision=7"


@pytest.mark.parametrize(
    ("key", "value"), [("limit_train_batches", 1.0), ("min_epochs", None), ("min_steps", 2)]
)
def test_options_that_leave_the_stream_alone_pass(
    tmp_path: Path, settings: Any, key: str, value: Any
) -> None:
    summary = train(settings({f"trainer.{key}": value}), tmp_path / "run")
    assert summary["status"] == "completed"
