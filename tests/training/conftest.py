"""A tiny run, to be changed by dotted keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Settings = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def settings(root: Path) -> Settings:
    """``settings({"trainer.max_steps": 3})``: the shipped groups, with a tiny model and task."""

    def read(path: str) -> Any:
        return yaml.safe_load((root / "conf" / f"{path}.yaml").read_text(encoding="utf-8"))

    def make(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        task = {"name": "copy", "bits": 3, "max_length": 3, "lengths": [5], "bucket": 4}
        trainer = read("trainer/default") | {"accelerator": "cpu", "max_steps": 6, "val_check_interval": 3}
        config: dict[str, Any] = {
            "controller": {"name": "lstm", "hidden": 12},
            "memory": {"name": "dense", "slots": 8, "width": 4},
            "task": task | {"val_sequences": 7, "test_sequences": 7},
            "model": {"feedback": None},
            "optimizer": read("optimizer/adam"),
            "scheduler": read("scheduler/none"),
            "trainer": trainer | {"log_every_n_steps": 2},
            "callbacks": read("callbacks/default"),
            "logger": {},
            "batch_size": 4,
            "workers": 0,
            "threads": 1,
            "seed": 3,
            "ckpt_path": None,
            "plugins": [],
            "test": False,
        }
        config["callbacks"]["pictures"] = None
        for key, value in (changes or {}).items():
            node = config
            *path, last = key.split(".")
            for name in path:
                node = node[name]
            node[last] = value
        return config

    return make


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tables on the screen."""
    for room in ("run", "saved"):
        monkeypatch.setattr(f"mannlab.training.{room}.print_results", lambda *rest: None)
