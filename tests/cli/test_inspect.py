"""Looking at one sample of a saved run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mannlab.__main__ import main
from mannlab.cli import inspect
from mannlab.model import assemble

SAVED: dict[str, Any] = {
    "controller": {"name": "lstm", "hidden": 8},
    "memory": {"name": "dense", "slots": 8, "width": 4},
    "task": {"name": "copy", "bits": 3, "max_length": 3, "lengths": [4], "test_sequences": 25},
    "model": {},
    "seed": 5,
    "batch_size": 4,
    "threads": 1,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of an untrained model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    model, _ = assemble(SAVED)
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save(
        {"state_dict": weights, "hyper_parameters": SAVED, "global_step": 7},
        folder / "checkpoints" / "best.ckpt",
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(SAVED))
    return folder


@pytest.fixture
def refused(run: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call the command with something wrong in it; what it says comes back."""

    def call(*arguments: str) -> str:
        assert main(["inspect", str(run), *arguments]) == 1
        said = capfd.readouterr().err
        assert said.startswith("error: "), said
        return said

    return call


def test_a_sample_is_shown_and_drawn(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"run={run}", "split=length_4", "sample=2"]) == 0
    said = capsys.readouterr().out
    assert "sample 2 of test_length_4" in said
    folder = run / "inspect" / "test_length_4_2"
    assert {path.name for path in folder.iterdir()} == {"inspect.png", "inspect.gif", "inspect.html"}
    assert str(folder / "inspect.html") in said


def test_task_steps_and_folder_can_be_chosen(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = str(run / "checkpoints" / "best.ckpt")
    options = ["task.lengths=[6]", "split=test_length_6", "steps=2:5", f"to={tmp_path / 'here'}"]
    assert main(["inspect", ckpt, *options]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[2:5]] == ["2", "3", "4"]
    assert (tmp_path / "here" / "inspect.html").is_file()


def test_wrong_words_are_named(refused: Callable[..., str]) -> None:
    assert "has 25 samples" in refused("sample=25")
    assert "sample: 'x' is not a number" in refused("sample=x")
    assert "split: there is no 'tset'" in refused("split=tset")
    assert "Did you mean 'steps'" in refused("step=3")
    assert "the sample has only 9 steps" in refused("split=length_4", "steps=9:12")
    assert "The last must be above the first" in refused("steps=5:5")
    assert "steps: '1-2' cannot be read" in refused("steps=1-2")
    assert "slotz" in refused("memory.slotz=3")


@pytest.mark.parametrize(
    ("text", "wanted"), [("40", (0, 40)), ("10:50", (10, 50)), (":7", (0, 7)), ("3:", (3, 10**9))]
)
def test_steps(text: str, wanted: tuple[int, int]) -> None:
    assert inspect.read_steps(text) == wanted


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--help"]) == 0
    assert "steps=" in capsys.readouterr().out
