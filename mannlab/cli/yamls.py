"""What the yaml files say about themselves: first comment lines, keys, comments beside keys. No Hydra."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mannlab import compose, registry
from mannlab.errors import ConfigError

ORDER = (
    "task",
    "memory",
    "controller",
    "model",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "experiment",
    "sweep",
    "recipe",
    "debug",
)


@dataclass(frozen=True)
class Choice:
    """One option of a group, such as ``memory=dense``."""

    group: str
    name: str
    description: str
    path: Path | None = None
    module: str = ""  # of a plugin: that of its class, or the package whose yaml it is


def groups(folders: list[Path]) -> list[str]:
    """Every group, the important ones first."""
    found = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    found |= set(registry.ROOMS)
    found -= {"hydra", "__pycache__"}
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def choices_of(group: str, folders: list[Path]) -> list[Choice]:
    """The options of a group: yaml files, then plugin components that have none."""
    found: dict[str, Choice] = {}
    plugins = compose.plugin_folders()
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            module = plugins.get(folder, "")
            found.setdefault(path.stem, Choice(group, path.stem, first_line(path), path, module))
    if group in registry.ROOMS:
        for name in registry.names(group):
            cls = registry.get(group, name)
            if name not in found:
                found[name] = Choice(group, name, registry.describe(cls), module=cls.__module__)
            elif not cls.__module__.startswith("mannlab."):
                found[name] = replace(found[name], module=cls.__module__)
    return [found[name] for name in sorted(found)]


def first_line(path: Path) -> str:
    """The first comment line of a yaml file that is not Hydra's."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").rstrip()
        if line.strip() and not line.startswith("#"):
            return ""
    return ""


def comments(path: Path) -> dict[str, str]:
    """The comments beside the keys of a yaml file, those in a mapping by their dotted names."""
    found = {}
    above: list[tuple[int, str]] = []  # indents and names of the mappings that a line is in
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"^( *)(\w+):[^#]*?(?:\s#\s*(.*))?$", line)
        if not match:
            continue
        indent = len(match[1])
        above = [*(level for level in above if level[0] < indent), (indent, match[2])]
        if above[0][1] != "defaults":
            found[".".join(name for _, name in above)] = (match[3] or "").strip()
    return found


def keys() -> dict[str, str]:
    """The keys that belong to no group, with their comments."""
    found = comments(compose.conf_dir() / "config.yaml")
    return {key: words for key, words in found.items() if key.partition(".")[0] != "hydra"}


def values(path: Path) -> dict[str, Any]:
    """The contents of a yaml file, read plainly.

    Raises:
        ConfigError: it cannot be read.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Mend it; two spaces make a level.") from error
    return found if isinstance(found, dict) else {}


def defaults() -> dict[str, str]:
    """What each group is if nothing is said."""
    chosen = {}
    for entry in values(compose.conf_dir() / "config.yaml").get("defaults", []):
        if isinstance(entry, dict):
            for group, name in entry.items():
                chosen[str(group).removeprefix("optional ")] = str(name)
    return chosen
