"""The registry and Hydra."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mannlab import compose, registry
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


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of plugins with yaml files, and a module of it within another package."""
    inner = tmp_path / "some_lab" / "parts"
    inner.mkdir(parents=True)
    (tmp_path / "some_lab" / "__init__.py").write_text("")
    (inner / "__init__.py").write_text("")
    (inner / "module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    return tmp_path / "some_lab"


def write(path: Path, text: str = "# Something\nname: dense\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_folder_conf_of_a_plugin_is_the_nearest(lab: Path) -> None:
    compose.publish(["plugins=[some_lab.parts.module]"])
    assert compose.plugin_folders() == {}
    write(lab / "conf" / "memory" / "far.yaml")
    assert compose.plugin_folders() == {lab / "conf": "some_lab"}
    write(lab / "parts" / "conf" / "memory" / "near.yaml")
    assert compose.plugin_folders() == {lab / "parts" / "conf": "some_lab.parts"}
    assert compose.yaml_folders(["--config-dir=mine"])[1:] == [lab / "parts" / "conf", Path("mine")]


def test_a_folder_conf_beside_a_single_module_is_none_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "lonely.py", "")
    write(tmp_path / "conf" / "memory" / "x.yaml")
    compose.publish(["plugins=[lonely]"])
    assert compose.plugin_folders() == {}


def test_an_experiment_may_name_plugins(lab: Path, tmp_path: Path) -> None:
    write(lab / "conf" / "memory" / "theirs.yaml")
    write(tmp_path / "mine" / "experiment" / "study.yaml", "plugins: [some_lab.parts.module]\n")
    arguments = [f"--config-dir={tmp_path / 'mine'}", "experiment=study"]
    assert compose.plugins_of_experiment(arguments) == ["some_lab.parts.module"]
    assert compose.plugins_of_experiment([*arguments[:1], "experiment=other"]) == []
    compose.publish([*arguments, "plugins=[]"])
    assert compose.plugin_folders() == {}, "the command line wins"
    compose.publish(arguments)
    assert compose.plugin_folders() == {lab / "conf": "some_lab"}


def test_yaml_files_of_a_plugin_that_are_never_read_are_named(lab: Path) -> None:
    hidden = write(lab / "conf" / "memory" / "dense.yaml")
    write(lab / "conf" / "memory" / "my_dense.yaml")
    with pytest.warns(
        UserWarning, match=r"plugin 'some_lab': .*dense\.yaml is not used, .*is mannlab's"
    ) as said:
        compose.publish(["plugins=[some_lab.parts.module]"])
    assert len(said) == 1
    hidden.unlink()
    compose.publish(["plugins=[some_lab.parts.module]"])


def test_a_plugins_yaml_takes_the_place_of_the_node(lab: Path) -> None:
    from hydra.core.config_store import ConfigStore

    register("memory", "somebodys")(Part)
    write(lab / "conf" / "memory" / "somebodys.yaml", "name: somebodys\n")
    compose.publish(["plugins=[some_lab.parts.module]"])
    assert "somebodys.yaml" not in ConfigStore.instance().repo["memory"]


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
