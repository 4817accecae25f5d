"""Testing a saved run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import mannlab.training.saved
from mannlab.__main__ import main
from mannlab.cli import evaluate
from mannlab.errors import ConfigError
from tests.cli.conftest import Room

SAVED: dict[str, Any] = {
    "controller": {"name": "lstm", "hidden": 8},
    "memory": {"name": "dense", "slots": 8},
    "task": {"name": "copy", "lengths": [4], "max_length": 3},
    "model": {"feedback": True},
    "trainer": {"precision": "64-true", "accelerator": "gpu", "profiler": {"_target_": "os.system"}},
    "callbacks": {"evil": {"_target_": "os.system", "command": "true"}},
    "logger": {"evil": {"_target_": "os.system"}},
    "optimizer": {"_target_": "os.system"},
    "seed": 5,
    "batch_size": 4,
}


@pytest.fixture
def run(room: Room, tmp_path: Path) -> Path:
    """A run's folder with a checkpoint that nobody reads."""
    folder = tmp_path / "outputs" / "copy" / "lstm-dense" / "then"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("best", "last"):
        (folder / "checkpoints" / f"{name}.ckpt").write_text("")
    (folder / "config.yaml").write_text(yaml.safe_dump(SAVED))
    return folder


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the training room is asked to evaluate."""
    found: dict[str, Any] = {}

    def fake(config: dict[str, Any], checkpoint: Path, out: Path) -> dict[str, Any]:
        found.update(config=config, checkpoint=checkpoint, out=out)
        out.write_text(json.dumps({}))
        return {}

    monkeypatch.setattr(mannlab.training.saved, "evaluate", fake)
    return found


def test_a_run_is_tested_with_overrides(run: Path, given: dict[str, Any]) -> None:
    assert main(["eval", f"run={run}", "task.lengths=[5,6]", "batch_size=2", "trainer.accelerator=cpu"]) == 0
    config = given["config"]
    assert config["task"].items() >= {"name": "copy", "lengths": [5, 6], "max_length": 3}.items()
    assert (config["batch_size"], config["seed"]) == (2, 5)
    assert config["memory"].items() >= SAVED["memory"].items()
    assert config["trainer"]["accelerator"] == "cpu"
    assert given["checkpoint"] == run / "checkpoints" / "best.ckpt"
    assert given["out"].parent == run
    assert given["out"].name.startswith("eval_")


def test_batches_of_tests_can_have_another_size(run: Path, given: dict[str, Any]) -> None:
    assert main(["eval", f"run={run}"]) == 0
    assert given["config"]["eval_batch_size"] == 64
    (run / "config.yaml").write_text(yaml.safe_dump({**SAVED, "eval_batch_size": 9}))
    assert main(["eval", f"run={run}"]) == 0
    assert given["config"]["eval_batch_size"] == 9
    assert main(["eval", f"run={run}", "eval_batch_size=7"]) == 0
    assert given["config"]["eval_batch_size"] == 7


def test_options_that_a_run_is_older_than_can_be_given(run: Path, given: dict[str, Any]) -> None:
    assert main(["eval", f"run={run}", "task.test_sequences=3"]) == 0
    assert given["config"]["task"]["test_sequences"] == 3
    assert given["config"]["memory"]["width"] == 20


def test_foreign_classes_of_a_saved_run_are_left_alone(run: Path, given: dict[str, Any]) -> None:
    assert main(["eval", str(run)]) == 0
    assert "os.system" not in json.dumps(given["config"])
    assert given["config"]["trainer"]["precision"] == "64-true"
    assert given["config"]["trainer"]["accelerator"] == "auto"


def test_the_checkpoint_can_be_chosen(run: Path, given: dict[str, Any]) -> None:
    last = run / "checkpoints" / "last.ckpt"
    for arguments in ([str(run), "ckpt=last"], [str(run), f"ckpt={last}"], [str(last)]):
        assert main(["eval", *arguments]) == 0
        assert given["checkpoint"] == last
        assert given["out"].parent == run


def test_no_overrides_need_no_quotes(run: Path, given: dict[str, Any]) -> None:
    odd = run.rename(run.parent / "seed=1,memory=dense")
    assert main(["eval", f"run={odd}"]) == 0
    assert given["out"].parent == odd


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["task.lengthz=[3]"], ["task.lengthz", "Did you mean 'lengths'?"]),
        (["tusk.lengths=[3]"], ["no key 'tusk'", "Did you mean 'task'?"]),
        (["task=associative_recall"], ["task", "it was trained with"]),
        (["ckpt=first"], ["'first'", "best, last"]),
        (["task.lengths=[3"], ["cannot be read"]),
        (["--verbose"], ["'--verbose' cannot be read", "usage"]),
    ],
)
def test_wrong_arguments_are_explained(
    run: Path, refused: Callable[..., str], arguments: list[str], expected: list[str]
) -> None:
    said = refused("eval", str(run), *arguments)
    for words in expected:
        assert words in said


def test_runs_that_are_none_are_explained(run: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    newest = "outputs/copy/lstm-dense/then"
    assert newest in refused("eval")
    assert newest in refused("eval", "nowhere")
    assert "no config.yaml" in refused("eval", str(tmp_path))
    (run / "config.yaml").write_text("a: [b\n")
    assert "cannot be read" in refused("eval", str(run))
    (run / "config.yaml").write_text("a: b\n")
    assert "not the configuration of a run" in refused("eval", str(run))


def test_a_run_without_checkpoint_is_explained(run: Path, refused: Callable[..., str]) -> None:
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert "no checkpoint" in refused("eval", str(run))


def test_modules_are_not_imported_on_the_word_of_a_file(run: Path, refused: Callable[..., str]) -> None:
    saved = {**SAVED, "memory": {"name": "ring"}, "plugins": ["mannlab_ring"]}
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    said = refused("eval", str(run))
    assert "no memory 'ring'" in said
    assert "plugins=[mannlab_ring]" in said


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--help"]) == 0
    assert "mannlab eval RUN" in capsys.readouterr().out


def test_overrides_keep_their_types() -> None:
    config = evaluate.override({"a": {"b": 1.0, "c": None, "d": [1]}}, ["a.b=1e-3", "a.c=x", "a.d=[2,3]"])
    assert config == {"a": {"b": 1e-3, "c": "x", "d": [2, 3]}}
    with pytest.raises(ConfigError, match="no key 'e' in a"):
        evaluate.override({"a": {"b": 1}}, ["a.e=1"])


def test_arguments_are_told_apart() -> None:
    found = evaluate.read_arguments(["run=x/y=z", "ckpt=last", "plugins=[p]", "batch_size=3"])
    assert found == ("x/y=z", "last", ["batch_size=3"])
