"""Names to classes. No torch and no Hydra here, so that start-up stays fast.

A component is a class decorated with :func:`register`; its keyword-only parameters are its options.
Built-in components live one to a file, ``<room>/<name>.py``, and are imported when they are asked
for. Plugins are found by entry points in the group ``mannlab.plugins`` or named by the user.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mannlab.errors import ConfigError, choices

ROOMS = {"controller": "mannlab.controller", "memory": "mannlab.memory", "task": "mannlab.tasks"}
PLUGIN_GROUP = "mannlab.plugins"

Class = TypeVar("Class", bound=type)

_components: dict[tuple[str, str], type] = {}
_broken_plugins: dict[str, str] = {}


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a component."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def register(kind: str, name: str) -> Callable[[Class], Class]:
    """Class decorator: make a controller, memory or task known by name.

    Raises:
        ConfigError: unknown kind, or a name that another module has taken.
    """
    if kind not in ROOMS:
        raise ConfigError(f"Unknown kind of component: '{kind}'.", choices(kind, ROOMS, "kinds"))

    def decorate(cls: Class) -> Class:
        taken = _components.get((kind, name))
        if taken is None and not cls.__module__.startswith("mannlab.") and name in _builtin_modules(kind):
            taken = get(kind, name)
        same = taken is not None and (taken.__module__, taken.__qualname__) == (
            cls.__module__,
            cls.__qualname__,
        )
        if taken is not None and not same:
            raise ConfigError(
                f"{kind} '{name}' is registered twice: by {taken.__module__} and by {cls.__module__}.",
                "Give one of them another name.",
            )
        _components[kind, name] = cls
        return cls

    return decorate


def _builtin_modules(kind: str) -> list[str]:
    room = importlib.import_module(ROOMS[kind])
    return [info.name for info in pkgutil.iter_modules(room.__path__)]


def load_builtins() -> None:
    """Import every built-in component (slow: imports torch)."""
    for kind, room in ROOMS.items():
        for module in _builtin_modules(kind):
            importlib.import_module(f"{room}.{module}")


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import the plugins that are installed, and those named.

    An installed plugin that fails to import is reported once and left out, so that it cannot take
    the program down; one that the user named is an error.

    Raises:
        ConfigError: a named module cannot be imported.
    """
    if os.environ.get("MANNLAB_DISABLE_PLUGINS") != "1":
        for point in entry_points(group=PLUGIN_GROUP):
            if point.name in _broken_plugins:
                continue
            try:
                point.load()
            except Exception as error:
                _broken_plugins[point.name] = f"{type(error).__name__}: {error}"
                warnings.warn(f"plugin '{point.name}' ({point.value}) was left out: {error}", stacklevel=2)
    for module in modules:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(module)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"plugins: cannot import '{module}': {type(error).__name__}: {error}",
                "Name a module that Python can import from here, such as plugins=[my_package.my_module].",
            ) from error


def names(kind: str) -> list[str]:
    """Every name registered so far for a kind, sorted."""
    return sorted(name for known, name in _components if known == kind)


def get(kind: str, name: str) -> type:
    """The class registered under a name.

    Raises:
        ConfigError: there is none; the message lists what there is and the closest match.
    """
    if kind not in ROOMS:
        raise ConfigError(f"Unknown kind of component: '{kind}'.", choices(kind, ROOMS, "kinds"))
    if (kind, name) not in _components and name in _builtin_modules(kind):
        importlib.import_module(f"{ROOMS[kind]}.{name}")
    if (kind, name) not in _components:
        load_builtins()
        hint = choices(name, names(kind))
        for plugin, why in _broken_plugins.items():
            hint += f"\nPlugin '{plugin}' could not be loaded: {why}"
        raise ConfigError(f"There is no {kind} '{name}'.", hint)
    return _components[kind, name]


def options(cls: type) -> dict[str, Option]:
    """The options of a component: the keyword-only parameters of its class."""
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    parameters = inspect.signature(cls).parameters.values()
    return {
        p.name: Option(p.name, hints.get(p.name, Any), p.default)
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def describe(cls: type) -> str:
    """First line of a component's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def build(kind: str, name: str, *context: Any, **settings: Any) -> Any:
    """Make a component by name.

    Args:
        kind: ``"controller"``, ``"memory"`` or ``"task"``.
        name: its registered name.
        context: positional arguments that the model supplies (a controller's ``input_size``).
        settings: its options.

    Raises:
        ConfigError: unknown name, unknown option, wrong type, or an impossible value.
    """
    cls = get(kind, name)
    known = options(cls)
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"{kind}.{key}: {kind} '{name}' has no such option.", choices(key, known, "options")
            )
    for key, option in known.items():
        if key in settings:
            settings[key] = conform(settings[key], option.annotation, f"{kind}.{key}")
        elif option.required:
            raise ConfigError(
                f"{kind}.{key}: {kind} '{name}' needs this option.", f"type: {spell(option.annotation)}"
            )
    return cls(*context, **settings)


def build_from(kind: str, config: Mapping[str, Any], *context: Any) -> Any:
    """:func:`build` from a mapping with a ``name`` and options."""
    settings = dict(config)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"{kind}.name: missing.", f"Choose one, such as {kind}={(names(kind) or ['...'])[0]}."
        )
    return build(kind, name, *context, **settings)


def conform(value: Any, annotation: Any, key: str) -> Any:
    """``value`` as the annotated type (an int where a float is wanted is fine).

    Raises:
        ConfigError: it is of another type; the message names the key and what is allowed.
    """
    fitted, ok = _fit(value, annotation)
    if not ok:
        raise ConfigError(
            f"{key}: {value!r} is not allowed.", f"allowed: {spell(annotation)}{example(annotation, key)}"
        )
    return fitted


def _fit(value: Any, annotation: Any) -> tuple[Any, bool]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value, True
    if origin is Literal:
        return value, value in arguments
    if origin in (Union, UnionType):
        for argument in arguments:
            fitted, ok = _fit(value, argument)
            if ok:
                return fitted, True
        return value, False
    if origin in (list, tuple) or annotation in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return value, False
        fits = [_fit(item, arguments[0] if arguments else Any) for item in value]
        return [fitted for fitted, _ in fits], all(ok for _, ok in fits)
    if dict in (origin, annotation):
        return value, isinstance(value, dict)
    if annotation in (None, NoneType):
        return None, value is None
    if annotation is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (float(value) if number else value), number
    if annotation is int:
        if isinstance(value, float) and value.is_integer():
            return int(value), True  # yaml reads 1e3 as a float
        return value, isinstance(value, int) and not isinstance(value, bool)
    if isinstance(annotation, type):
        return value, isinstance(value, annotation)
    return value, True


def example(annotation: Any, key: str) -> str:
    """How to write a value of a type whose name does not say it, such as ``, such as memory.slots=8``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return example(arguments[0], key)
    shown = {int: "8", float: "0.1", bool: "true"}.get(annotation)
    if origin in (list, tuple) and arguments and arguments[0] in (int, float):
        shown = "[10,20]" if arguments[0] is int else "[0.1,0.2]"
    return f", such as {key}={shown}" if shown else ""


def spell(annotation: Any) -> str:
    """An annotation in words: ``int``, ``flat | conv``, ``list of int``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(item) for item in arguments)
    if origin in (Union, UnionType):
        return " | ".join(spell(item) for item in arguments)
    if origin in (list, tuple):
        return f"list of {spell(arguments[0])}"
    if dict in (origin, annotation):
        return "mapping"
    if annotation in (None, NoneType):
        return "null"
    return getattr(annotation, "__name__", str(annotation))
