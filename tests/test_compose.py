"""The registry and Hydra."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mannlab import compose
from mannlab.errors import ConfigError
from mannlab.registry import register


class Part:
    """A part of somebody's."""

    def __init__(
        self, *, sizes: tuple[int, ...] = (1, 2), rate: float = 0.5, must: int, odd: object = object()
    ) -> None:
        pass


def test_the_configuration_is_found() -> None:
    assert (compose.conf_dir() / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plugins=[a,b.c]"], ["a", "b.c"]),
        (["task=copy", "plugins=a"], ["a"]),
        (["plugins=['a', \"b\"]"], ["a", "b"]),
        (["+plugins=[a]"], ["a"]),
        (["plugins=[]"], []),
        (["plugins=null"], []),
        ([], []),
    ],
)
def test_named_plugins_are_found(arguments: list[str], expected: list[str]) -> None:
    assert compose.named_plugins(arguments) == expected


def test_a_node_holds_the_defaults_of_the_signature() -> None:
    assert compose.node("part", Part) == {"name": "part", "sizes": [1, 2], "rate": 0.5, "must": "???"}


def test_components_without_a_yaml_are_published_and_forgotten(tmp_path: Path) -> None:
    from hydra.core.config_store import ConfigStore

    register("memory", "somebodys")(Part)
    compose.publish()
    stored = ConfigStore.instance().repo["memory"]
    assert stored["somebodys.yaml"].node["rate"] == 0.5
    assert "dense.yaml" not in stored
    # With a yaml of its own in a folder that the user names, Hydra must not see both.
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "somebodys.yaml").write_text("name: somebodys\n")
    for arguments in (
        ["--config-dir", str(tmp_path)],
        [f"--config-dir={tmp_path}"],
        [f"hydra.searchpath=[file://{tmp_path}]"],
    ):
        compose.publish(arguments)
        assert "somebodys.yaml" not in stored


def test_folders_of_packages_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package" / "conf").mkdir(parents=True)
    (tmp_path / "their_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = compose.yaml_folders(["hydra.searchpath=[pkg://their_package.conf,pkg://no_such_package]"])
    assert found[1] == tmp_path / "their_package" / "conf"


def test_named_modules_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "somebodys_module", types.ModuleType("somebodys_module"))
    compose.publish(["plugins=[somebodys_module]"])
    with pytest.raises(ConfigError, match="nobodys_module"):
        compose.publish(["plugins=[nobodys_module]"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["memory=dense", "seed=1"], "memory-dense_seed-1"),
        (["task.lengths=[10,20]", "optimizer.lr=1e-4"], "task.lengths-10-20_optimizer.lr-1e-4"),
        (["ckpt_path=/a/b c/d.ckpt", "+x=${y}"], "ckpt_path-a-b-c-d.ckpt_x-y"),
        (["hydra.verbose=true", "hydra/launcher=basic", "seed=1"], "seed-1"),
        ([], "job"),
    ],
)
def test_folders_of_jobs(overrides: list[str], expected: str) -> None:
    assert re.fullmatch(re.escape(expected) + "-[0-9a-f]{6}", compose.folder(overrides))


def test_long_folders_are_cut_and_stay_apart() -> None:
    names = {compose.folder([f"memory.{'x' * 200}={value}"]) for value in range(5)}
    assert len(names) == 5
    assert all(len(name) <= 60 for name in names)


def test_the_stamp_has_milliseconds_and_is_asked_once() -> None:
    assert re.fullmatch(r"[\d-]{10}_\d\d-\d\d-\d\d-\d{3}", compose.stamp())
    compose.register_resolvers()
    config = OmegaConf.create({"a": "${mannlab.stamp:}", "b": "${mannlab.stamp:}"})
    assert config.a == config.b == config.a


def test_labels_come_from_the_task() -> None:
    assert compose.label({"name": "copy"}) == "copy"
    with pytest.raises(ConfigError, match="copi"):
        compose.label({"name": "copi"})
    with pytest.raises(ConfigError, match=r"task\.name"):
        compose.label({})


def test_a_label_cannot_leave_its_folder() -> None:
    class Sly(Part):
        @classmethod
        def label(cls, options: dict[str, object]) -> str:
            return "../../etc"

    register("task", "sly")(Sly)
    assert "/" not in compose.label({"name": "sly"})


def test_plain_containers() -> None:
    config = OmegaConf.create({"a": {"b": [1, 2]}, "c": "${a.b}"})
    found = compose.plain(config)
    assert found == {"a": {"b": [1, 2]}, "c": [1, 2]}
    assert type(found["a"]) is dict
    with pytest.raises(ConfigError, match=r"a\.b: missing"):
        compose.plain(OmegaConf.create({"a": {"b": "???"}}))
    with pytest.raises(ConfigError, match="nothing"):
        compose.plain(OmegaConf.create({"a": "${nothing}"}))


def test_texts_are_not_resolved() -> None:
    assert compose.texts(OmegaConf.create(["a=${b}"])) == ["a=${b}"]
