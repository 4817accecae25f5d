"""``trainer.*`` keys are the keywords of ``lightning.Trainer``: all of them, listed in our yaml or not."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mannlab import compose
from mannlab.cli import yamls
from mannlab.errors import ConfigError, choices

SOURCE = Path("pytorch", "trainer", "trainer.py")


@cache
def of_lightning() -> frozenset[str]:
    """The keywords of ``lightning.Trainer``, read from its source: importing it would take seconds.

    Empty if the source is not where it is expected; then nothing can be said about a key.
    """
    spec = find_spec("lightning")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / SOURCE
        if path.is_file():
            return frozenset(_parameters(path.read_text(encoding="utf-8")))
    return frozenset()


def _parameters(source: str) -> list[str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "Trainer":
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    named = [*method.args.args, *method.args.kwonlyargs]
                    return [argument.arg for argument in named if argument.arg != "self"]
    return []


def listed() -> frozenset[str]:
    """The keys of ``conf/trainer/default.yaml``."""
    return frozenset(yamls.values(compose.conf_dir() / "trainer" / "default.yaml"))


def check(key: str) -> None:
    """Refuse ``trainer.<key>`` if it is neither listed nor a keyword of Lightning's.

    Raises:
        ConfigError: it is not; names the closest match.
    """
    if key in listed() or not of_lightning() or key in of_lightning():
        return
    raise ConfigError(
        f"trainer.{key}: there is no key '{key}' in trainer, and Lightning's Trainer has no such keyword.",
        choices(key, listed() | of_lightning(), "keys"),
    )


def admit(arguments: Sequence[str]) -> list[str]:
    """Arguments as Hydra wants them: it takes keys that no yaml lists with ``++`` only.

    Raises:
        ConfigError: a key of ``trainer`` that Lightning does not know.
    """
    found = []
    for argument in arguments:
        match = re.match(r"(\+{0,2})trainer\.(\w+)([.=])", argument)
        if match:
            plus, key, then = match.groups()
            check(key)
            if key in listed() and then == "=":
                argument = argument.removeprefix("+") if plus == "+" else argument
            else:
                argument = "++" + argument.lstrip("+")
        found.append(argument)
    return found
