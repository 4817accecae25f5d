"""Runs as commands name them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mannlab.cli import resume, saved
from mannlab.errors import CheckpointError


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs and a sweep of two jobs in outputs/, made one after the other; where one is now."""
    monkeypatch.chdir(tmp_path)
    found = Path("outputs")
    for age, name in enumerate(("copy/old", "copy/new", "sweeps/then/0", "sweeps/then/1")):
        checkpoint = found / name / "checkpoints" / "last.ckpt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text("")
        os.utime(checkpoint, (age, age))
    (found / "sweeps" / "then" / "sweep.json").write_text("{}")
    return found


def test_last_is_the_newest(outputs: Path) -> None:
    assert saved.named("last") == outputs / "sweeps" / "then" / "1"
    os.utime(outputs / "copy" / "new" / "checkpoints" / "last.ckpt", (9, 9))
    assert saved.named("last") == outputs / "copy" / "new"


def test_a_folder_of_that_name_goes_first(outputs: Path) -> None:
    Path("last").mkdir()
    assert saved.named("last") == Path("last")


def test_the_newest_are_a_hint(outputs: Path) -> None:
    assert saved.newest(2) == "The newest runs are:\n  outputs/sweeps/then/1\n  outputs/sweeps/then/0"
    with pytest.raises(CheckpointError, match=r"nothing at outputs/none\.\nThe newest runs are:"):
        saved.named("outputs/none")


def test_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no runs in outputs/ yet"):
        saved.named("last")
    assert saved.newest() == "There are no runs in outputs/ yet."


def test_a_sweep_names_its_runs(outputs: Path) -> None:
    sweep = outputs / "sweeps" / "then"
    with pytest.raises(CheckpointError, match=rf"{sweep} is a sweep\.\n.*\n  {sweep}/1\n  {sweep}/0"):
        saved.named(str(sweep))


def test_the_folder_of_a_checkpoint(outputs: Path) -> None:
    run = outputs / "copy" / "old"
    assert saved.folder(run / "checkpoints" / "last.ckpt") == saved.folder(run) == run


def test_resume_goes_on_with_the_newest_or_its_sweep(outputs: Path) -> None:
    assert resume.understand(["last"])[0] == {"sweep": "outputs/sweeps/then"}
    os.utime(outputs / "copy" / "new" / "checkpoints" / "last.ckpt", (9, 9))
    for word in ("last", "run=last"):
        assert resume.understand([word])[0] == {"run": "outputs/copy/new"}
