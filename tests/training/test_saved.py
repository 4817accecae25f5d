from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from mannlab.errors import CheckpointError
from mannlab.training import saved
from mannlab.training.checkpoints import find_checkpoint, read_checkpoint
from mannlab.training.run import train
from mannlab.training.saved import evaluate, load

pytestmark = pytest.mark.usefixtures("silent")


def test_evaluate_repeats_the_run_s_test(tmp_path: Path, settings: Any) -> None:
    config = settings({"test": True})
    summary = train(config, tmp_path / "run")
    found = evaluate(config, tmp_path / "run", tmp_path / "eval.json")
    tested = {key: value for key, value in summary["metrics"].items() if key.startswith("test")}
    assert found["metrics"] == tested
    assert json.loads((tmp_path / "eval.json").read_text())["metrics"] == tested
    longer = evaluate(settings({"task.lengths": [4]}), tmp_path / "run")
    assert "test_length_4/bit_errors_per_sequence" in longer["metrics"]


def test_evaluate_draws_metrics_against_size(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        saved, "generalisation", lambda task, metrics, trained: seen.append(trained) or Figure(figsize=(2, 2))
    )
    changes = {"task.curriculum": {"threshold": 99.0, "window": 4}, "task.lengths": [4, 8]}
    config = settings(changes)
    train(config, tmp_path / "run")
    evaluate(config, tmp_path / "run", tmp_path / "eval.json")
    assert (tmp_path / "eval_generalisation.png").is_file()
    state = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")["StreamData"]["curriculum"]
    assert seen == [state["rises"][-1][1]]
    assert seen[0] > 3, "what the curriculum reached"
    monkeypatch.undo()
    evaluate(settings({"task.lengths": [8]}), tmp_path / "run", tmp_path / "one.json")
    assert not list(tmp_path.glob("one_*"))


def test_evaluate_refuses_weights_that_do_not_fit(tmp_path: Path, settings: Any) -> None:
    train(settings({"trainer.max_steps": 3}), tmp_path / "run")
    with pytest.raises(CheckpointError, match="controller"):
        evaluate(settings({"controller.hidden": 13}), tmp_path / "run")


def test_load_gives_the_best_weights_in_evaluation_mode(tmp_path: Path, settings: Any) -> None:
    train(settings(), tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert not loaded.model.training
    assert loaded.config["seed"] == 3
    assert loaded.task.objective.metric == "cost_bits_per_sequence"
    kept = read_checkpoint(find_checkpoint(tmp_path / "run"))["state_dict"]
    weights = {f"model.{key}": value for key, value in loaded.model.state_dict().items()}
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[key], kept[key]) for key in kept)
