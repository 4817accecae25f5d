"""Foreign classes (optimizers, callbacks, loggers) from ``_target_`` nodes."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mannlab.errors import ConfigError, choices

TARGET = "_target_"

# An annotation with one of these takes text, or several numbers.
NO_NUMBERS = {"str", "Any", "Literal", "tuple", "Tuple", "list", "List", "Sequence", "Iterable"}
NO_NUMBERS |= {"dict", "Dict", "Mapping"}


def locate(target: str, key: str) -> Any:
    """The object at a dotted path such as ``torch.optim.Adam``.

    Raises:
        ConfigError: there is none; ``key`` names the place in the configuration.
    """
    module, _, name = str(target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{key}._target_: cannot find '{target}': {error}",
            "Give the full dotted path of a class that Python can import, such as torch.optim.Adam.",
        ) from error
    if not callable(found):
        raise ConfigError(f"{key}._target_: '{target}' is not a class or function.", "Name a class.")
    return found


def instantiate(node: Mapping[str, Any], key: str, *args: Any, **defaults: Any) -> Any:
    """Call what ``node["_target_"]`` names with the node's other keys.

    Args:
        node: ``{"_target_": "dotted.path", keyword arguments...}``; nested nodes are made first.
        key: its place in the configuration, for messages.
        args: positional arguments.
        defaults: keyword arguments used where the node has no such key and the target takes it.

    Raises:
        ConfigError: unknown target or argument.
    """
    if TARGET not in node:
        raise ConfigError(
            f"{key}._target_: missing.", "Name a class by its dotted path, such as torch.optim.Adam."
        )
    target = locate(node[TARGET], key)
    settings = {name: nested(value, f"{key}.{name}") for name, value in node.items() if name != TARGET}
    takes, anything = _parameters(target)
    for name in settings:
        if not anything and name not in takes:
            raise ConfigError(
                f"{key}.{name}: {node[TARGET]} has no such argument.", choices(name, takes, "arguments")
            )
    check_numbers(target, settings, key)
    settings = {name: value for name, value in defaults.items() if name in takes} | settings
    try:
        return target(*args, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {node[TARGET]} refused its arguments: {error}", f"given: {settings}"
        ) from error


def check_numbers(target: Any, settings: Mapping[str, Any], key: str) -> None:
    """Refuse text for an argument that takes numbers, going by its annotation.

    Raises:
        ConfigError: ``key`` and the argument are named.
    """
    for name, parameter in (_signature(target) or {}).items():
        value, default = settings.get(name), parameter.default
        if not isinstance(value, str):
            continue
        words = set(re.findall(r"\w+", _spelt(parameter.annotation)))
        if words & {"int", "float"} and not words & NO_NUMBERS:
            kind = "number" if "float" in words else "whole number"
            usual = f", such as {default}" if isinstance(default, (int, float)) and default > 0 else ""
            raise ConfigError(
                f"{key}.{name}: {value!r} is not a {kind}.", f"Give {key}.{name}=<{kind}>{usual}."
            )


def _spelt(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def duration(value: Any, key: str) -> Any:
    """A length of time as Lightning takes it; a whole number counts as seconds.

    Raises:
        ConfigError: ``value`` is neither that nor DD:HH:MM:SS, null, a mapping or a timedelta.
    """
    if value is None or isinstance(value, (Mapping, timedelta)):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return timedelta(seconds=value)
    if isinstance(value, str) and re.fullmatch(r"\d+(:\d\d){3}", value.strip()):
        return value
    raise ConfigError(
        f"{key}: {value!r} is not a length of time.",
        f"Give DD:HH:MM:SS, such as {key}=00:00:01:00 for a minute, or a whole number of seconds.",
    )


def nested(value: Any, key: str) -> Any:
    """A value with every ``_target_`` node in it made; the rest as it is."""
    if isinstance(value, Mapping) and TARGET in value:
        return instantiate(value, key)
    if isinstance(value, list):
        return [nested(item, f"{key}.{i}") for i, item in enumerate(value)]
    return value


def _signature(target: Any) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return None


def _parameters(target: Any) -> tuple[list[str], bool]:
    signature = _signature(target)
    if signature is None:
        return [], True
    parameters = signature.values()
    named = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def instantiate_all(nodes: Mapping[str, Any] | None, key: str, **defaults: Any) -> list[Any]:
    """:func:`instantiate` for each named node of a group; null nodes are left out."""
    return [
        instantiate(node, f"{key}.{name}", **defaults)
        for name, node in (nodes or {}).items()
        if node is not None
    ]
