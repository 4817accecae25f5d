"""Foreign classes (optimizers, callbacks, loggers) from ``_target_`` nodes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from mannlab.errors import ConfigError, choices

TARGET = "_target_"


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
    settings = {name: value for name, value in defaults.items() if name in takes} | settings
    try:
        return target(*args, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {node[TARGET]} refused its arguments: {error}", f"given: {settings}"
        ) from error


def nested(value: Any, key: str) -> Any:
    """A value with every ``_target_`` node in it made; the rest as it is."""
    if isinstance(value, Mapping) and TARGET in value:
        return instantiate(value, key)
    if isinstance(value, list):
        return [nested(item, f"{key}.{i}") for i, item in enumerate(value)]
    return value


def _parameters(target: Any) -> tuple[list[str], bool]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return [], True
    named = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def instantiate_all(nodes: Mapping[str, Any] | None, key: str, **defaults: Any) -> list[Any]:
    """:func:`instantiate` for each named node of a group; null nodes are left out."""
    return [
        instantiate(node, f"{key}.{name}", **defaults)
        for name, node in (nodes or {}).items()
        if node is not None
    ]
