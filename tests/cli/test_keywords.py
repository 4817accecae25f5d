"""Every keyword of Lightning's Trainer is a key."""

from __future__ import annotations

import inspect

import lightning.pytorch
import pytest

from mannlab.__main__ import main
from mannlab.cli import keywords
from mannlab.errors import ConfigError
from tests.cli.conftest import Room

KEYWORDS = sorted(inspect.signature(lightning.pytorch.Trainer).parameters)


def test_the_source_says_what_the_class_says() -> None:
    assert sorted(keywords.of_lightning()) == KEYWORDS


def test_what_we_list_is_lightnings() -> None:
    assert keywords.listed() <= keywords.of_lightning()


def test_pluses_are_as_hydra_wants_them() -> None:
    assert keywords.admit(["seed=2", "trainer.max_steps=3", "trainer=cpu", "+optimizer.x=1"]) == [
        "seed=2",
        "trainer.max_steps=3",
        "trainer=cpu",
        "+optimizer.x=1",
    ]
    assert keywords.admit(["+trainer.max_steps=3"]) == ["trainer.max_steps=3"]
    for plus in ("", "+", "++"):
        assert keywords.admit([f"{plus}trainer.min_steps=3"]) == ["++trainer.min_steps=3"]
    with pytest.raises(ConfigError, match=r"trainer\.min_step:"):
        keywords.admit(["+trainer.min_step=3"])


def test_without_the_source_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywords, "of_lightning", frozenset)
    assert keywords.admit(["trainer.min_step=3"]) == ["++trainer.min_step=3"]


@pytest.mark.parametrize("plus", ["", "+"])
def test_every_keyword_reaches_the_training_room(room: Room, plus: str) -> None:
    assert main([f"{plus}trainer.{key}={i}" for i, key in enumerate(KEYWORDS)]) == 0
    assert {key: room.config["trainer"][key] for key in KEYWORDS} == {k: i for i, k in enumerate(KEYWORDS)}


def test_keywords_can_be_structures(room: Room) -> None:
    assert main(["trainer.strategy._target_=some.Strategy", "trainer.min_steps=4"]) == 0
    assert room.config["trainer"]["strategy"] == {"_target_": "some.Strategy"}
    assert main(["trainer.strategy={_target_: some.Strategy, x: 1}"]) == 0
    assert room.config["trainer"]["strategy"] == {"_target_": "some.Strategy", "x": 1}
