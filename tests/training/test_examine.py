"""What a task finds when a trained model answers freely: metrics, texts, and answers to a user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab.contracts import Task
from mannlab.errors import CheckpointError, ConfigError
from mannlab.training.predict import Predictor
from mannlab.training.run import train
from mannlab.training.saved import evaluate, load
from tests.training.conftest import Settings

pytest.importorskip("tokenizers")
pytest.importorskip("sacrebleu")

TASK = {"name": "translation", "source": "numbers", "pairs": 120, "largest": 999, "vocabulary": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def config(settings: Settings) -> dict[str, Any]:
    changes: dict[str, Any] = {"test": True, "memory": {"name": "none"}, "eval_batch_size": 8}
    task = TASK | {"val_sequences": 8, "test_sequences": 8, "val_translations": 3, "bucket": 4, "beam": 2}
    pictures = {"_target_": "mannlab.training.callbacks.Pictures", "min_seconds": 0}
    changes |= {"logger": {"tensorboard": {"_target_": "mannlab.training.loggers.TensorBoard"}}}
    return settings(changes | {"task": task, "callbacks.pictures": pictures, "trainer.max_steps": 3})


@pytest.fixture
def run(config: dict[str, Any], folder: Path, silent: None) -> Path:
    if not (folder / "summary.json").exists():
        train(config, folder)
    return folder


def test_metrics_texts_and_signatures_are_kept(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert {"val/chrf_points", "test/chrf_points", "test/exact_match_percent"} <= set(summary["metrics"])
    assert "version:" in summary["facts"]["sacrebleu"]["chrf"]
    for stage, rows in (("val", 3), ("test", 8)):
        text = (run / "texts" / f"{stage}_translations.md").read_text()
        assert len(text.splitlines()) == 2 + rows


def test_tensorboard_has_the_texts(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    assert {"val/translations/text_summary", "test/translations/text_summary"} <= set(
        events.Tags()["tensors"]
    )
    (last,) = events.Tensors("test/translations/text_summary")
    assert "| source | translation | reference |" in last.tensor_proto.string_val[0].decode()


def test_a_user_is_answered_as_the_model_would(run: Path, config: dict[str, Any]) -> None:
    predictor = Predictor(config, run / "checkpoints" / "best.ckpt")
    answers = predictor(["seven hundred and two", "", "nine"])
    assert len(answers) == 3
    assert answers[1] == ""
    assert predictor(["nine"]) == [answers[2]]


def test_evaluating_again_finds_the_same(run: Path, config: dict[str, Any], silent: None) -> None:
    before = json.loads((run / "summary.json").read_text())["metrics"]
    again = evaluate(config, run)["metrics"]
    assert again["test/chrf_points"] == pytest.approx(before["test/chrf_points"])
    assert again["test/bits_per_token"] == pytest.approx(before["test/bits_per_token"])


def test_a_vocabulary_of_other_data_is_refused(run: Path, config: dict[str, Any], tmp_path: Path) -> None:
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["fingerprint"] == load(run).task.fingerprint
    other = tmp_path / "checkpoints" / "other.ckpt"
    other.parent.mkdir()
    torch.save({**saved, "fingerprint": "0000"}, other)
    for use in (lambda: Predictor(config, other), lambda: load(other), lambda: evaluate(config, other)):
        with pytest.raises(CheckpointError, match="another vocabulary"):
            use()


def test_a_search_that_cannot_be_is_refused_before_training(config: dict[str, Any], tmp_path: Path) -> None:
    config["memory"] = {"name": "sparse", "slots": 8, "width": 4}
    with pytest.raises(ConfigError, match=r"task\.beam: 2 is not allowed with memory=sparse"):
        train(config, tmp_path)


def test_tasks_without_texts_say_so() -> None:
    class Silent(Task):
        def splits(self, stage: str) -> list[Any]:
            return []

        def batch(self, *rest: Any) -> Any:
            return None

        def score(self, *rest: Any) -> Any:
            return None

    with pytest.raises(ConfigError, match="Silent has no texts"):
        Silent().predict(lambda *rest, **more: [], ["a"])  # type: ignore[arg-type]
