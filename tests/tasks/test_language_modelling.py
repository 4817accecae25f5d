"""Language modelling: every token asked once, in order, from whatever number of lanes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mannlab import registry
from mannlab.draws import Draws
from mannlab.errors import ConfigError

TEXT = "".join(chr(97 + i % 26) + chr(97 + i // 26 % 26) for i in range(1000))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)

    def build(**options: Any) -> Any:
        settings = {"name": "language_modelling", "source": "files", "files": [str(tmp_path / "text.txt")]}
        return registry.build_from("task", {**settings, "level": "byte", **options})

    registry.load_builtins()
    return build


@pytest.mark.parametrize("lanes", [1, 3, 4])
def test_evaluation_asks_every_token_once_in_order(make: Any, lanes: int) -> None:
    task = make(length=7, eval_lanes=lanes)
    split = task.splits("test")[0]
    assert split.samples % lanes == 0
    asked: list[list[int]] = [[] for _ in range(lanes)]
    given: list[list[int]] = [[] for _ in range(lanes)]
    for start in range(0, split.samples, lanes):
        batch = task.batch(split, Draws(0, "test"), start, lanes)
        assert batch.continues == (start > 0)
        for lane in range(lanes):
            real = batch.scored[lane].bool()
            assert batch.valid is None or torch.equal(batch.valid, batch.scored)
            asked[lane] += batch.targets[lane, real, 0].tolist()
            given[lane] += batch.inputs["token"][lane, real].tolist()
    tokens = task.corpus.tokens["test"].tolist()
    assert [token for lane in asked for token in lane] == tokens[1:]
    assert [token for lane in given for token in lane] == tokens[:-1]


def test_a_lane_may_be_asked_alone(make: Any) -> None:
    task = make(length=5, eval_lanes=4)
    split = task.splits("val")[0]
    whole = task.batch(split, Draws(0, "val"), 4, 4)
    part = task.batch(split, Draws(0, "val"), 6, 2)
    assert torch.equal(whole.targets[2:], part.targets)


def test_training_reads_on_and_begins_elsewhere_each_time(make: Any) -> None:
    task = make(length=10)
    split = replace(task.splits("train")[0], lanes=4)
    draws = Draws(5, "train")
    tokens = task.corpus.tokens["train"]
    batches = [task.batch(split, draws, start, 4) for start in range(0, 400, 4)]
    begins = [i for i, batch in enumerate(batches) if not batch.continues]
    steps = task._steps(4)
    assert begins == list(range(0, 100, steps))
    for before, after in pairwise(batches):
        if after.continues:
            assert torch.equal(before.targets[:, -1, 0], after.inputs["token"][:, 0])
    first = [batches[i].inputs["token"][0].tolist() for i in begins[:3]]
    assert first[0] != first[1] or first[1] != first[2]
    text = bytes(tokens.astype(np.uint8))
    for batch in batches:
        for row, target in zip(batch.inputs["token"], batch.targets[..., 0], strict=True):
            assert bytes([*row.tolist(), int(target[-1])]) in text


def test_the_costs_are_bits_per_token_and_per_word(make: Any) -> None:
    task = make(length=6, eval_lanes=2)
    batch = task.batch(task.splits("val")[0], Draws(0, "val"), 0, 2)
    score = task.score(torch.zeros(2, 6, 1, 256), batch)
    assert score.loss.item() == pytest.approx(np.log(256), rel=1e-6)
    means = {name: float(total / count) for name, (total, count) in score.metrics.items()}
    assert means["bits_per_token"] == pytest.approx(8)
    size, words = len(task.corpus.tokens["val"]), task.corpus.words["val"]
    assert means["bits_per_word"] == pytest.approx(8 * size / words, rel=1e-5)
    assert task.derive(means)["perplexity_per_token"] == pytest.approx(256)


def test_bad_options_name_the_key(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.length"):
        make(length=0)
    with pytest.raises(ConfigError, match="too few"):
        make(eval_lanes=4000)
    for level, vocabulary in (("word", 0), ("word", 1), ("bpe", 255), ("byte", 300)):
        with pytest.raises(ConfigError, match=rf"task\.vocabulary: {vocabulary} is not allowed"):
            make(level=level, vocabulary=vocabulary)
    (tmp_path / "blank.txt").write_text(" ")
    with pytest.raises(ConfigError, match="too few"):
        make(level="word", files=[str(tmp_path / "blank.txt")])


@pytest.mark.parametrize("level", ["word", "bpe", "byte"])
def test_another_vocabulary_is_told_apart_from_the_same_size(make: Any, tmp_path: Path, level: str) -> None:
    if level == "bpe":
        pytest.importorskip("tokenizers")
    found = []
    for number, words in enumerate(["one two three ", "one two seven ", "one two three "]):
        path = tmp_path / f"{number}.txt"
        path.write_text(words * 100)
        found.append(
            make(level=level, vocabulary=None if level == "byte" else 260, eval_lanes=2, files=[str(path)])
        )
    sizes, marks = {task.corpus.vocabulary for task in found}, [task.fingerprint for task in found]
    assert len(sizes) == 1 or level == "bpe"
    assert marks[0] == marks[2]
    assert (marks[0] == marks[1]) == (level == "byte")
    assert (marks[0] is None) == (level == "byte")
