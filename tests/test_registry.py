"""Names to classes: choosing, checking options, plugins, and messages that help."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

from mannlab import registry
from mannlab.errors import ConfigError
from mannlab.registry import build, build_from, conform, get, names, options, register, spell


class Plain:
    """A component that keeps what it is given.

    The second paragraph is not part of its description.
    """

    def __init__(
        self, size: int, *, slots: int, rate: float = 0.5, kind: Literal["flat", "conv"] = "flat"
    ) -> None:
        self.given = (size, slots, rate, kind)


def in_module(name: str, module: str) -> type:
    """A class that says it was defined elsewhere."""
    return type(name, (Plain,), {"__module__": module, "__init__": Plain.__init__})


# ---------------------------------------------------------------------- names


def test_register_and_build() -> None:
    register("memory", "plain")(Plain)
    assert get("memory", "plain") is Plain
    assert "plain" in names("memory")
    assert build("memory", "plain", 7, slots=3, rate=1).given == (7, 3, 1.0, "flat")


def test_same_class_again_is_fine_as_when_a_module_is_reloaded() -> None:
    register("memory", "plain")(in_module("A", "plugin_a"))
    reloaded = in_module("A", "plugin_a")
    register("memory", "plain")(reloaded)
    assert get("memory", "plain") is reloaded


def test_a_name_taken_by_another_module_is_an_error_naming_both() -> None:
    register("memory", "plain")(in_module("A", "plugin_a"))
    with pytest.raises(ConfigError, match=r"memory 'plain' is registered twice: by plugin_a and by plugin_b"):
        register("memory", "plain")(in_module("B", "plugin_b"))


def test_a_built_in_name_is_taken_even_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._components, ("memory", "none"), raising=False)
    monkeypatch.delitem(sys.modules, "mannlab.memory.none", raising=False)
    with pytest.raises(ConfigError, match=r"twice: by mannlab\.memory\.none and by plugin_a"):
        register("memory", "none")(in_module("A", "plugin_a"))


def test_kinds_have_names_of_their_own() -> None:
    register("memory", "plain")(in_module("A", "plugin_a"))
    register("controller", "plain")(in_module("B", "plugin_b"))
    assert get("memory", "plain") is not get("controller", "plain")


@pytest.mark.parametrize("call", [lambda: register("memorie", "x"), lambda: get("memorie", "x")])
def test_unknown_kind(call: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"'memorie'.*\n.*Did you mean 'memory'\? kinds: controller, memory"
    ):
        call()


def test_unknown_name_lists_what_there_is_and_the_closest() -> None:
    with pytest.raises(ConfigError) as caught:
        get("memory", "dence")
    assert caught.value.what == "There is no memory 'dence'."
    assert caught.value.hint.startswith("Did you mean 'dense'? known: ")
    assert "none" in caught.value.hint


def test_every_built_in_is_found_by_its_file_name() -> None:
    for kind in registry.ROOMS:
        registry.load_builtins()
        for name in names(kind):
            cls = get(kind, name)
            assert cls.__module__.rpartition(".")[2] == name
            assert registry.describe(cls), f"{kind} '{name}' has no docstring"


# ---------------------------------------------------------------------- options


def test_options_are_the_keyword_only_parameters() -> None:
    found = options(Plain)
    assert list(found) == ["slots", "rate", "kind"]
    assert found["slots"].required
    assert found["slots"].annotation is int
    assert not found["rate"].required
    assert found["rate"].default == 0.5


def test_describe_is_the_first_line() -> None:
    assert registry.describe(Plain) == "A component that keeps what it is given."


def test_unknown_option_names_key_and_closest() -> None:
    register("memory", "plain")(Plain)
    with pytest.raises(ConfigError, match=r"memory\.slotz.*\n.*Did you mean 'slots'\?"):
        build("memory", "plain", 1, slotz=3)


def test_missing_option() -> None:
    register("memory", "plain")(Plain)
    with pytest.raises(ConfigError, match=r"memory\.slots: memory 'plain' needs this option.\ntype: int"):
        build("memory", "plain", 1)


def test_build_from_a_mapping_leaves_it_alone() -> None:
    register("memory", "plain")(Plain)
    config = {"name": "plain", "slots": 2}
    assert build_from("memory", config, 1).given[:2] == (1, 2)
    assert config == {"name": "plain", "slots": 2}


@pytest.mark.parametrize("config", [{}, {"slots": 3}, {"name": None}])
def test_build_from_needs_a_name(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"memory\.name: missing"):
        build_from("memory", config)


# ---------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        (3, int, 3),
        (1e3, int, 1000),
        (3, float, 3.0),
        (0.5, float, 0.5),
        ("flat", Literal["flat", "conv"], "flat"),
        (None, int | None, None),
        (4, int | None, 4),
        ([1, 2], list[int], [1, 2]),
        ([1, 2], list[float], [1.0, 2.0]),
        (None, list[int] | None, None),
        ((1, 2), tuple[int, ...], [1, 2]),
        (True, bool, True),
        ("a", str, "a"),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_conform_accepts(value: Any, annotation: Any, fitted: Any) -> None:
    result = conform(value, annotation, "memory.x")
    assert result == fitted
    assert type(result) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation", "allowed"),
    [
        ("3", int, "int"),
        (0.5, int, "int"),
        (True, int, "int"),
        (True, float, "float"),
        (1, bool, "bool"),
        (None, int, "int"),
        ("flatt", Literal["flat", "conv"], r"flat \| conv"),
        ("x", int | None, r"int \| null"),
        ([1, "x"], list[int], "list of int"),
        (1, list[int], "list of int"),
    ],
)
def test_conform_refuses_and_says_what_is_allowed(value: Any, annotation: Any, allowed: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^memory\.x: .*not allowed\.\nallowed: {allowed}(, such as memory\.x=\S+)?$"
    ):
        conform(value, annotation, "memory.x")


def test_spell() -> None:
    assert spell(list[float] | None) == "list of float | null"
    assert spell(Literal["auto", 1]) == "auto | 1"


# ---------------------------------------------------------------------- plugins


class Point:
    """An entry point of the test's own."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.value, self.error, self.loads = name, f"{name}_module", error, 0

    def load(self) -> ModuleType:
        self.loads += 1
        if self.error:
            raise self.error
        register("memory", self.name)(type("A", (), {"__module__": self.value}))
        return ModuleType(self.value)


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: list(points))


def test_installed_plugins_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("good"))
    registry.load_plugins()
    assert "good" in names("memory")


def test_a_broken_plugin_is_left_out_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = Point("bad", RuntimeError("no such library")), Point("good")
    install(monkeypatch, bad, good)
    with pytest.warns(UserWarning, match="plugin 'bad' .*left out: RuntimeError: no such library"):
        registry.load_plugins()
    assert "good" in names("memory")
    registry.load_plugins()  # reported once: a second warning would be an error here
    assert bad.loads == 1
    with pytest.raises(ConfigError, match=r"Plugin 'bad' could not be loaded: RuntimeError: no such library"):
        get("memory", "bad")


@pytest.mark.parametrize("error", [SystemExit(2), ConfigError("memory 'x' is registered twice", "Rename.")])
def test_whatever_a_plugin_does_the_program_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    class Half(Point):
        def load(self) -> ModuleType:
            super().load()
            raise error

    install(monkeypatch, Half("half"), Point("good"))
    with pytest.warns(UserWarning, match=r"plugin 'half' .*left out: "):
        registry.load_plugins()
    assert "good" in names("memory")
    assert "half" not in names("memory"), "what it had registered before must be gone too"
    assert registry.plugin_modules() == ["good_module"]


def test_the_second_of_two_plugins_of_one_name_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Same(Point):
        def load(self) -> ModuleType:
            register("memory", "same")(type("A", (), {"__module__": self.value}))
            return ModuleType(self.value)

    install(monkeypatch, Same("one"), Same("two"))
    with pytest.warns(UserWarning, match=r"plugin 'two' .*registered twice: by one_module and by two_module"):
        registry.load_plugins()
    assert get("memory", "same").__module__ == "one_module"


def test_plugins_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point("good")
    install(monkeypatch, point)
    monkeypatch.setenv("MANNLAB_DISABLE_PLUGINS", "1")
    registry.load_plugins()
    assert point.loads == 0


PLUGIN = """
from mannlab.registry import register

@register("memory", "{name}")
class FromFile:
    "A memory from a file."
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder whose modules can be named as plugins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    install(monkeypatch)
    return tmp_path


def test_a_named_module_of_the_current_folder_is_a_plugin(folder: Path) -> None:
    (folder / "plugin_of_mine.py").write_text(PLUGIN.format(name="mine"))
    registry.load_plugins(["plugin_of_mine"])
    assert registry.describe(get("memory", "mine")) == "A memory from a file."


def test_a_named_module_that_is_missing_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"plugins: cannot import 'nowhere_at_all': ModuleNotFoundError"):
        registry.load_plugins(["nowhere_at_all"])


def test_a_named_module_that_fails_is_an_error_with_its_reason(folder: Path) -> None:
    (folder / "plugin_that_fails.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError: division by zero"):
        registry.load_plugins(["plugin_that_fails"])


def test_a_named_module_that_takes_a_built_in_name_keeps_its_own_message(folder: Path) -> None:
    (folder / "plugin_that_clashes.py").write_text(PLUGIN.format(name="none"))
    with pytest.raises(ConfigError, match=r"twice: by mannlab\.memory\.none and by plugin_that_clashes"):
        registry.load_plugins(["plugin_that_clashes"])


def test_a_refusal_shows_how_to_write_it() -> None:
    for annotation, shown in (
        (int | None, "x=8"),
        (list[int], "x=[10,20]"),
        (float, "x=0.1"),
        (bool, "x=true"),
    ):
        with pytest.raises(ConfigError, match="such as") as error:
            conform("?", annotation, "memory.x")
        assert error.value.hint.endswith(f", such as memory.{shown}")


SIGNATURES = {
    "slots: int = 3": r"memory 'odd' \(odd_plugin\.Odd\): slots cannot be set.*\n.*self, \*, slots\)",
    "*, slots: Nonsense = 3": r"memory 'odd' .*: its options cannot be read: name 'Nonsense' is not defined",
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_options_that_cannot_be_read_are_refused(
    folder: Path, signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PLUGIN.format(name="odd").replace("FromFile", "Odd").replace("from mannlab", FUTURE, 1)
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)
    (folder / "odd_plugin.py").write_text(f"{text}\n    def __init__(self, {signature}): ...\n")
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r"plugins: 'odd_plugin' cannot be used: " + SIGNATURES[signature]):
        registry.load_plugins(["odd_plugin"])
    assert "odd" not in names("memory")


FUTURE = "from __future__ import annotations\nfrom mannlab"


def test_a_method_that_is_missing_is_named(folder: Path) -> None:
    text = """
from mannlab.contracts import Memory
from mannlab.registry import register

@register("memory", "odd")
class Odd(Memory):
    def init_state(self, batch): ...
"""
    (folder / "odd_memory.py").write_text(text)
    with pytest.raises(ConfigError, match=r"memory 'odd' \(odd_memory\.Odd\) lacks forward"):
        registry.load_plugins(["odd_memory"])


def test_a_controller_must_take_its_input_size(folder: Path) -> None:
    text = PLUGIN.format(name="odd").replace('"memory"', '"controller"')
    (folder / "odd_controller.py").write_text(f"{text}\n    def __init__(self, *, hidden: int = 3): ...\n")
    with pytest.raises(ConfigError, match=r"controller 'odd' .* must take input_size"):
        registry.load_plugins(["odd_controller"])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "import nowhere_at_all",
            r"It needs 'nowhere_at_all', which is not installed \(at .*failing\.py, line 1\)",
        ),
        ("x = 1\n1 / 0", r"went wrong at .*failing\.py, line 2"),
        ("x = 1\nx = = 1", r"went wrong at .*failing\.py, line 2"),
    ],
)
def test_the_place_of_a_failure_is_named(folder: Path, text: str, hint: str) -> None:
    (folder / "failing.py").write_text(text)
    with pytest.raises(ConfigError, match=hint):
        registry.load_plugins(["failing"])
