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
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mannlab.errors import ConfigError, choices

ROOMS = {"controller": "mannlab.controller", "memory": "mannlab.memory", "task": "mannlab.tasks"}
PLUGIN_GROUP = "mannlab.plugins"

Class = TypeVar("Class", bound=type)

# What the model supplies to a component's class, before its options.
CONTEXT = {"controller": ("input_size",), "memory": (), "task": ()}

_components: dict[tuple[str, str], type] = {}
_broken_plugins: dict[str, str] = {}
_plugin_modules: dict[str, str] = {}


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
        if taken is None and not cls.__module__.startswith("mannlab.") and name in builtin_names(kind):
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


def builtin_names(kind: str) -> list[str]:
    """Every name of ours for a kind, also of those that are not imported yet."""
    room = importlib.import_module(ROOMS[kind])
    modules = pkgutil.iter_modules(room.__path__)
    return [info.name for info in modules if not info.name.startswith("_")]


def load_builtins() -> None:
    """Import every built-in component (slow: imports torch)."""
    for kind, room in ROOMS.items():
        for module in builtin_names(kind):
            importlib.import_module(f"{room}.{module}")


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import the plugins that are installed, and those named.

    An installed plugin that cannot be used is reported once and left out, with all that it has registered,
    so that it cannot take the program down; one that the user named is an error.

    Raises:
        ConfigError: a named module cannot be imported, or what it registers cannot be used.
    """
    if os.environ.get("MANNLAB_DISABLE_PLUGINS") != "1":
        for point in entry_points(group=PLUGIN_GROUP):
            if point.name in _broken_plugins:
                continue
            try:
                _admit(point.load)
            except (Exception, SystemExit) as error:
                kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
                why = kind + " ".join(str(error).split())
                _broken_plugins[point.name] = why
                warnings.warn(f"plugin '{point.name}' ({point.value}) was left out: {why}", stacklevel=2)
            else:
                _plugin_modules[point.name] = point.value.partition(":")[0].strip()
    for module in modules:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            _admit(partial(importlib.import_module, module))
        except ConfigError as error:
            raise ConfigError(f"plugins: '{module}' cannot be used: {error.what}", error.hint) from error
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"plugins: cannot import '{module}': {type(error).__name__}: {error}",
                _import_hint(module, error),
            ) from error
        _plugin_modules[module] = module


def _admit(load: Callable[[], Any]) -> None:
    """Import a plugin and look over what it registers; if anything is wrong, all of that is forgotten."""
    before = dict(_components)
    try:
        load()
        for (kind, name), cls in list(_components.items()):
            if before.get((kind, name)) is not cls and not cls.__module__.startswith("mannlab."):
                check_signature(kind, name, cls)
    except (Exception, SystemExit):
        for key, cls in list(_components.items()):
            if key not in before and not cls.__module__.startswith("mannlab."):
                del _components[key]
        raise


def _import_hint(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return "Name a module that Python can import from here, such as plugins=[my_package.my_module]."
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else module
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}, line {error.lineno}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"It needs '{error.name}', which is not installed (at {where})."
    return f"It went wrong at {where}."


def check_signature(kind: str, name: str, cls: type) -> None:
    """Refuse a class whose options cannot be read from its signature.

    Raises:
        ConfigError: an abstract method is missing, an option is not keyword-only, or a type has no meaning.
    """
    title = f"{kind} '{name}' ({cls.__module__}.{cls.__qualname__})"
    if inspect.isabstract(cls):
        lacks = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise ConfigError(f"{title} lacks {lacks}.", "docs/plugins.md says what each is to do.")
    try:
        parameters = list(inspect.signature(cls).parameters.values())
        options(cls)
    except Exception as error:
        raise ConfigError(
            f"{title}: its options cannot be read: {error}",
            "Annotate each with a type that its own module knows when it is imported.",
        ) from error
    free = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    supplied = CONTEXT[kind]
    stray = [p.name for p in free[len(supplied) :]]
    if stray:
        raise ConfigError(
            f"{title}: {', '.join(stray)} cannot be set, being no keyword-only parameter.",
            f"Write def __init__({', '.join(['self', *supplied, '*', *stray])}): options follow the *.",
        )
    if len(free) < len(supplied) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ConfigError(
            f"{title} must take {', '.join(supplied)}.",
            f"Write def __init__({', '.join(['self', *supplied, '*'])}, ...): the model supplies it.",
        )


def plugin_modules() -> list[str]:
    """The modules of the plugins that were loaded, installed ones first."""
    return list(dict.fromkeys(_plugin_modules.values()))


def broken_plugins() -> str:
    """A line for each installed plugin that could not be loaded."""
    return "\n".join(
        f"Plugin '{plugin}' could not be loaded: {why}" for plugin, why in _broken_plugins.items()
    )


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
    if (kind, name) not in _components and name in builtin_names(kind):
        importlib.import_module(f"{ROOMS[kind]}.{name}")
    if (kind, name) not in _components:
        load_builtins()
        hint = f"{choices(name, names(kind))}\n{broken_plugins()}".rstrip()
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


def defaults(cls: type) -> dict[str, Any]:
    """What the options of a component are, unless they are given."""
    return {option.name: option.default for option in options(cls).values() if not option.required}


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
