"""Every yaml composes, says what it is, and agrees with its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.plugins import Plugins

from mannlab import compose, registry
from mannlab.cli import yamls
from mannlab.training.build import instantiate

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra")
COMPONENTS = [path for path in FILES if path.parent.name in registry.ROOMS]


def name(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


def composed(*overrides: str) -> dict[str, Any]:
    """What the program would hand to the training room."""
    compose.register_resolvers()
    with initialize_config_dir(str(CONF), **compose.hydra_base()):
        config = hydra_compose("config", overrides=list(overrides))
    return compose.plain(config)


@pytest.fixture(autouse=True)
def launcher() -> None:
    """Hydra finds our launcher and sweepers, as in the program; it looks for them once in a process."""
    compose.find_launcher()
    Plugins.instance()


@pytest.mark.parametrize("path", COMPONENTS, ids=name)
def test_keys_are_the_options_of_the_class(path: Path) -> None:
    kind = path.parent.name
    values = yamls.values(path)
    options = registry.options(registry.get(kind, values.pop("name")))
    assert set(values) == set(options)
    for key, value in values.items():
        registry.conform(value, options[key].annotation, f"{kind}.{key}")


@pytest.mark.parametrize("path", COMPONENTS, ids=name)
def test_every_option_has_a_comment(path: Path) -> None:
    comments = yamls.comments(path)
    assert [key for key in yamls.values(path) if key != "name" and not comments[key]] == []


def test_every_component_has_a_yaml_of_its_name() -> None:
    registry.load_builtins()
    for kind in registry.ROOMS:
        ours = {n for n in registry.names(kind) if registry.get(kind, n).__module__.startswith("mannlab.")}
        assert {path.stem for path in COMPONENTS if path.parent.name == kind} == ours


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_yaml_says_what_it_is(path: Path) -> None:
    assert len(yamls.first_line(path)) > 5


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_yaml_composes(path: Path) -> None:
    config = composed(name(path))
    assert set(config) >= {"controller", "memory", "task", "trainer", "optimizer", "seed"}
    assert config["controller"]["name"]


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "recipe" and p.stem != "none"], ids=name
)
def test_recipes_belong_to_tasks(path: Path) -> None:
    assert path.stem in {p.stem for p in COMPONENTS if p.parent.name == "task"}


@pytest.mark.parametrize("name", ["cosine", "warmup_cosine", "warmup"])
def test_a_schedule_lasts_as_long_as_the_run(name: str) -> None:
    config = composed(f"scheduler={name}", "trainer.max_steps=20", "optimizer=adam", "optimizer.lr=0.1")
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config["optimizer"]["lr"])
    scheduler = instantiate(config["scheduler"], "scheduler", optimizer)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    if name != "cosine":
        assert rates[0] < 0.01
    if name != "warmup":
        assert max(rates) == pytest.approx(0.1)
        assert rates[-1] < 0.001
