from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mannlab.errors import ConfigError
from mannlab.training.build import TARGET, duration, instantiate, instantiate_all, locate


def test_makes_what_the_target_names() -> None:
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = instantiate({TARGET: "torch.optim.SGD", "lr": 0.5}, "optimizer", [p])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_makes_nested_nodes_first() -> None:
    inner = {TARGET: "torch.nn.Tanh"}
    made = instantiate({TARGET: "builtins.dict", "one": inner, "more": [inner, 3]}, "x")
    assert isinstance(made["one"], torch.nn.Tanh)
    assert isinstance(made["more"][0], torch.nn.Tanh)


def test_defaults_are_used_only_where_they_fit() -> None:
    made = instantiate_all(
        {"a": {TARGET: "fractions.Fraction", "numerator": 3}, "b": None}, "x", denominator=2, other=1
    )
    assert made == [3 / 2]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "_target_: missing"),
        ({TARGET: "torch.optim.Adamm"}, "cannot find 'torch.optim.Adamm'"),
        ({TARGET: "no_such_package.Thing"}, "cannot find"),
        ({TARGET: "Adam"}, "cannot find"),
        ({TARGET: "math.pi"}, "not a class"),
        ({TARGET: "torch.optim.Adam", "learning_rate": 1}, "optimizer.learning_rate"),
        ({TARGET: "torch.optim.Adam", "lr": -1.0}, "refused its arguments"),
        (
            {TARGET: "torch.optim.Adam", "lr": "big"},
            r"optimizer\.lr: 'big' is not a number\.\n.*such as 0.001",
        ),
    ],
)
def test_says_what_is_wrong(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate(node, "optimizer", [torch.nn.Parameter(torch.ones(1))])


def test_a_close_name_is_offered() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'momentum'"):
        instantiate({TARGET: "torch.optim.SGD", "momentun": 1}, "optimizer", [])


def test_text_stays_where_it_may_be() -> None:
    assert instantiate({TARGET: "fractions.Fraction", "numerator": "3/4"}, "x") == 3 / 4
    assert instantiate({TARGET: "builtins.dict", "lr": "big"}, "x") == {"lr": "big"}


@pytest.mark.parametrize("value", [None, timedelta(minutes=1), "00:00:01:00", {"minutes": 1}, 60])
def test_lengths_of_time(value: Any) -> None:
    assert duration(value, "x") == (timedelta(seconds=60) if value == 60 else value)


@pytest.mark.parametrize("value", ["00:01:00", "1 h", 0, -5, 1.5, True])
def test_what_is_no_length_of_time_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^x: .* is not a length of time\.\nGive DD:HH:MM:SS"):
        duration(value, "x")


@pytest.mark.parametrize("group", ["callbacks", "logger", "optimizer", "scheduler"])
def test_shipped_nodes_name_only_arguments_that_exist(root: Path, group: str) -> None:
    import inspect

    files = sorted((root / "conf" / group).glob("*.yaml"))
    assert files
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        nodes = [content] if TARGET in content else list(content.values())
        for node in (node for node in nodes if node[TARGET]):
            taken = inspect.signature(locate(node[TARGET], group)).parameters
            assert set(node) - {TARGET} <= set(taken), file


def test_shipped_trainer_keys_exist(root: Path) -> None:
    import inspect

    from lightning.pytorch import Trainer

    for file in (root / "conf" / "trainer").glob("*.yaml"):
        keys = set(yaml.safe_load(file.read_text(encoding="utf-8"))) - {"defaults"}
        assert keys <= set(inspect.signature(Trainer).parameters), file
