"""A program whose training room only writes down what it was given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mannlab.training.run
from mannlab.__main__ import main

SUMMARY = {
    "status": "completed",
    "steps": 7,
    "sequences_until_solved": None,
    "objective": {"metric": "errors", "mode": "min", "value": 0.25},
    "metrics": {"test/errors": 0.25},
}


class Room:
    """What :func:`mannlab.training.run.train` was called with, and what it shall do."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.folder = Path()
        self.status = "completed"
        self.error: BaseException | None = None

    def train(self, config: dict[str, Any], run_dir: Path, also: Any = ()) -> dict[str, Any]:
        self.config, self.folder = config, run_dir
        if self.error is not None:
            raise self.error
        summary = {**SUMMARY, "status": self.status}
        (run_dir / "summary.json").write_text(json.dumps(summary))
        return summary


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Room:
    """Nothing is trained; runs land below the test's own folder."""
    found = Room()
    monkeypatch.setattr(mannlab.training.run, "train", found.train)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.fixture
def refused(room: Room, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call the program with something wrong in it; what it says comes back."""

    def call(*arguments: str) -> str:
        assert main(arguments) == 1
        said = capfd.readouterr().err
        assert said.startswith("error: "), said
        assert "Traceback" not in said
        assert len(said.splitlines()) < 30
        return said

    return call
