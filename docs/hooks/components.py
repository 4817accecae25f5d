"""Tables made from the yaml files and the signatures, so that they say what the program says.

Directives, each an HTML comment on a line of its own:

- ``options: memory=dense``: a table of options;
- ``component: task=copy``: description and options;
- ``remaining: task``: those of a group that the page does not name;
- ``overview: memory``: a list of a group;
- ``group: optimizer``: every choice of a group of configurations;
- ``keys``: those of conf/config.yaml;
- ``usage: eval``: what a command says of itself; ``commands``: of those without a part here; ``flags``.
"""

from __future__ import annotations

import html
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mannlab import compose, registry
from mannlab.__main__ import COMMANDS
from mannlab.cli import help as help_page
from mannlab.cli import listing, yamls

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?\.?([^`]+)`")
DIRECTIVE = re.compile(
    r"^<!-- (options|component|remaining|overview|group|keys|usage|commands|flags)(?:: (\S+))? -->$",
    flags=re.MULTILINE,
)
ONE_PAGE = {"task": "tasks.md", "controller": "controllers.md"}


def on_config(config: Any) -> Any:
    """Memories without a page come into the navigation after those with one."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Memories" in entry:
            entry["Memories"] += [{name: f"memories/{name}.md"} for name in without_page(config)]
    return config


def on_files(files: Files, config: Any) -> Files:
    """A page from the docstring for each memory that nobody wrote one for."""
    for name in without_page(config):
        text = f"# {name}\n\n<!-- component: memory={name} -->\n"
        files.append(File.generated(config, f"memories/{name}.md", content=text))
    return files


def without_page(config: Any) -> list[str]:
    folder = Path(config.docs_dir) / "memories"
    return [choice.name for choice in choices("memory") if not (folder / f"{choice.name}.md").exists()]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Directives replaced by what they ask for."""

    def made(match: re.Match[str]) -> str:
        return MAKERS[match[1]](match[2] or "", markdown, page.file.src_uri)

    return DIRECTIVE.sub(made, markdown)


# ------------------------------------------------------------------ what there is


@cache
def choices(group: str) -> list[yamls.Choice]:
    """Every choice of a group that the checkout ships."""
    registry.load_builtins()
    return yamls.choices_of(group, [compose.conf_dir()])


def choice(said: str, where: str) -> yamls.Choice:
    """The choice that ``group=name`` names."""
    group, _, name = said.partition("=")
    for found in choices(group):
        if found.name == name:
            return found
    raise PluginError(f"{where}: there is no {said}.")


# ------------------------------------------------------------------ tables


def cell(text: str, code: bool = False) -> str:
    """Text for a cell of a table: no bar divides it, nothing in it is taken for Markdown."""
    plain = html.escape(text, quote=False)
    for sign in "|*_[]`$":
        plain = plain.replace(sign, f"&#{ord(sign)};")
    return f"<code>{plain}</code>" if code and plain else plain


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def options(said: str, _: str, where: str) -> str:
    """Key, type, default and meaning of each option of one choice."""
    return option_table(choice(said, where))


def option_table(found: yamls.Choice) -> str:
    rows = [
        [cell(f"{found.group}.{key}", code=True), cell(kind), cell(default, code=True), cell(meaning)]
        for key, kind, default, meaning in listing.options_of(found)
    ]
    return table(["option", "type", "default", "what it is"], rows) if rows else "It has no options.\n"


def component(said: str, _: str, where: str) -> str:
    """The docstring of a component up to its arguments, and its options."""
    found = choice(said, where)
    text = inspect.getdoc(registry.get(found.group, found.name)) or ""
    words = re.split(r"^(?:Args|Raises|Returns|Attributes):$", text, flags=re.MULTILINE)[0].strip()
    words = ROLE.sub(r"`\1`", words).replace("``", "`")
    typed = f"```text\n{found.group}={found.name}\n```"
    return f"{words}\n\n{typed}\n\n### Options of {found.name}\n\n{option_table(found)}"


def remaining(group: str, markdown: str, where: str) -> str:
    """Every component of a group that a page has no part for yet."""
    named = {
        name for _, name in re.findall(r"^<!-- (options|component): \w+=(\w+) -->$", markdown, re.MULTILINE)
    }
    left = [found for found in choices(group) if found.name not in named]
    return "\n\n".join(
        f"## {found.name}\n\n{component(f'{group}={found.name}', markdown, where)}" for found in left
    )


def overview(group: str, _: str, where: str) -> str:
    """Every component of a group with its page and a line about it."""
    rows = []
    for found in choices(group):
        to = f"{ONE_PAGE[group]}#{found.name}" if group in ONE_PAGE else f"memories/{found.name}.md"
        up = "../" * where.count("/")
        rows.append([f"[`{found.name}`]({up}{to})", cell(found.description)])
    return table([group, "what it is"], rows)


def group(name: str, _: str, where: str) -> str:
    """The files of a group of configurations, whose comments say what the keys are."""
    default = yamls.defaults().get(name)
    parts = []
    for found in choices(name):
        if found.path is None:
            raise PluginError(f"{where}: {name}={found.name} has no file.")
        star = " (the default)" if found.name == default else ""
        parts.append(f"`{name}={found.name}`{star}\n\n```yaml\n{found.path.read_text(encoding='utf-8')}```\n")
    if not parts:
        raise PluginError(f"{where}: there is no group '{name}'.")
    return "\n".join(parts)


def keys(_: str, markdown: str, where: str) -> str:
    """The keys that belong to no group."""
    given = yamls.values(compose.conf_dir() / "config.yaml")
    rows = [
        [cell(key, code=True), cell(listing.spell(given[key]), code=True), cell(words)]
        for key, words in yamls.keys().items()
    ]
    return table(["key", "default", "what it is"], rows)


# ------------------------------------------------------------------ commands


def usage(command: str, _: str, where: str) -> str:
    """What a command says when it is asked for help."""
    if command not in COMMANDS:
        raise PluginError(f"{where}: there is no command '{command}'.")
    return f"```text\n{import_module(COMMANDS[command]).USAGE}\n```\n"


def commands(_: str, markdown: str, where: str) -> str:
    """Commands that a page has no part for yet."""
    left = [name for name in COMMANDS if not re.search(rf"^## {name}$", markdown, flags=re.MULTILINE)]
    return "\n".join(f"## {name}\n\n{usage(name, markdown, where)}" for name in left)


def flags(_: str, markdown: str, where: str) -> str:
    """Flags of the program."""
    return table(
        ["flag", "what it does"], [[cell(flag, code=True), cell(words)] for flag, words in help_page.FLAGS]
    )


MAKERS: dict[str, Callable[[str, str, str], str]] = {
    "options": options,
    "component": component,
    "remaining": remaining,
    "overview": overview,
    "group": group,
    "keys": keys,
    "usage": usage,
    "commands": commands,
    "flags": flags,
}
