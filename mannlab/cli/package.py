"""Plugin packages in a folder: where their source is, and what their ``pyproject.toml`` says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mannlab import registry
from mannlab.errors import ConfigError

HOW = "docs/plugins.md says what a plugin package is made of."


@dataclass(frozen=True)
class Package:
    """A package of plugins.

    Attributes:
        folder: where its ``pyproject.toml`` is.
        source: where the folder is that is imported: ``folder``, or its ``src``.
        name: what is imported.
    """

    folder: Path
    source: Path
    name: str

    @property
    def project(self) -> Path:
        return self.folder / "pyproject.toml"

    def with_entry_point(self, name: str) -> str:
        """The text of ``pyproject.toml`` with one entry point more, and nothing else changed.

        Raises:
            ConfigError: it is written in a way that this cannot add to; the hint says what to write.
        """
        text = self.project.read_text(encoding="utf-8")
        before = read(self.project)
        points = before["project"].get("entry-points", {}).get(registry.PLUGIN_GROUP, {})
        line = f'{name} = "{self.name}.{name}"'
        header = f'[project.entry-points."{registry.PLUGIN_GROUP}"]'
        if name in points:
            raise ConfigError(f"{self.project} has an entry point '{name}' already.", "Choose another name.")
        match = re.search(
            rf"^\[\s*project\s*\.\s*entry-points\s*\.\s*[\"']{re.escape(registry.PLUGIN_GROUP)}[\"']\s*\].*$",
            text,
            flags=re.MULTILINE,
        )
        if match:
            # Behind the last key of the table; comments before the next one belong to that.
            table = re.match(r"(?:\n(?!\s*\[).*)*", text[match.end() :])
            keys = re.match(r"(?:.*\n)*\s*[^#\s].*", table[0] if table else "")
            place = match.end() + (keys.end() if keys else 0)
            after = f"{text[:place]}\n{line}{text[place:]}"
        else:
            after = f"{text.rstrip()}\n\n{header}\n{line}\n"
        try:
            same = tomllib.loads(after)
            added = same["project"]["entry-points"][registry.PLUGIN_GROUP].pop(name)
        except (tomllib.TOMLDecodeError, KeyError):
            same, added = {}, ""
        before["project"].setdefault("entry-points", {}).setdefault(registry.PLUGIN_GROUP, {})
        if added != f"{self.name}.{name}" or same != before:
            raise ConfigError(
                f"{self.project} is written in a way that a line cannot be added to; nothing was changed.",
                f"Add it yourself, then try again:\n{header}\n{line}",
            )
        return after


def read(project: Path) -> dict[str, Any]:
    """What a ``pyproject.toml`` says.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return tomllib.loads(project.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{project} cannot be read: {error}", "Mend it first.") from error


def entry_points(project: Path) -> list[str]:
    """The modules of a ``pyproject.toml``'s plugins; none if there is no such file."""
    if not project.is_file():
        return []
    found = read(project).get("project", {}).get("entry-points", {}).get(registry.PLUGIN_GROUP, {})
    return [str(value).partition(":")[0].strip() for value in found.values()]


def find(folder: Path) -> Package | None:
    """The package in a folder; None if there is no ``pyproject.toml``.

    Raises:
        ConfigError: there is one, but no package to add to.
    """
    project = folder / "pyproject.toml"
    if not project.is_file():
        return None
    said = read(project)
    if "name" not in said.get("project", {}):
        raise ConfigError(f"{project} has no [project] with a name, so it is not that of a package.", HOW)
    modules = [module.partition(".")[0] for module in entry_points(project)]
    modules.append(re.sub(r"[-.]+", "_", str(said["project"]["name"])))
    for module in modules:
        for source in (folder, folder / "src"):
            if (source / module / "__init__.py").is_file():
                return Package(folder, source, module)
    raise ConfigError(
        f"{folder} has no package '{modules[0]}', that is a folder with an __init__.py, to add a module to.",
        f"Make one of {modules[0]}.py, or take a new folder. {HOW}",
    )
