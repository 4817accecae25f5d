"""``list``: every part with its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mannlab import compose, registry
from mannlab.cli import yamls
from mannlab.errors import ConfigError, choices
from mannlab.trees import flat

USAGE = """usage: mannlab list [group | group=name | name ...] [plugins=[module,...]]

Lists controllers, memories and tasks with their options (type, default); or, by name, any group of
configurations, such as: mannlab list memory, mannlab list optimizer; or one of a group, such as:
mannlab list memory=dnc, mannlab list dnc."""

# Words that say where components are, not which to show.
WHERE = ("plugins", "hydra.searchpath")


def main(arguments: list[str]) -> int:
    """Print the tables; returns the exit code."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0
    registry.load_plugins(compose.named_plugins(arguments))
    folders = compose.yaml_folders(arguments)
    known = yamls.groups(folders)
    flag = [index for index, word in enumerate(arguments) if word in ("--config-dir", "-cd")]
    rest = [word for index, word in enumerate(arguments) if index - 1 not in flag]
    words = [
        word for word in rest if not word.startswith("-") and word.partition("=")[0].lstrip("+") not in WHERE
    ]
    if set(words) - (set(known) - set(registry.ROOMS)) or not words:
        registry.load_builtins()
    groups = {group: yamls.choices_of(group, folders) for group in known}
    wanted = understand(words, {group: [choice.name for choice in found] for group, found in groups.items()})
    console = make_console()
    for group, names in (wanted or {name: [] for name in yamls.ORDER if name in registry.ROOMS}).items():
        show_group(console, group, [c for c in groups[group] if not names or c.name in names])
    if not words:
        others = [name for name in known if name not in registry.ROOMS]
        console.print(f"[dim]also: mannlab list {' | '.join(others)}[/]")
    return 0


def understand(words: Sequence[str], known: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Groups to show, and which of each (none: all).

    Args:
        words: groups, ``group=name``, or names; a name after its group means the one in that group.
        known: each group's names.

    Raises:
        ConfigError: a word is none of these.
    """
    wanted: dict[str, list[str]] = {}
    last = ""
    for word in words:
        group, _, name = word.rpartition("=")
        if group in known:
            _check_name(name, group, known[group])
            wanted.setdefault(group, []).append(name)
        elif last and word in known[last]:
            wanted[last].append(word)
        elif word in known:
            wanted[word], last = [], word
        else:
            holders = [each for each, names in known.items() if word in names]
            if group or not holders:
                raise _not_understood(word, last, known)
            for each in holders:
                wanted.setdefault(each, []).append(word)
    return wanted


def _check_name(name: str, group: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ConfigError(f"There is no {group} '{name}'.", choices(name, names, group))


def _not_understood(word: str, last: str, known: Mapping[str, Sequence[str]]) -> ConfigError:
    group, equals, _ = word.partition("=")
    if equals:
        return ConfigError(f"There is no group '{group}'.", choices(group, known, "groups"))
    if last:
        what = f"There is no group '{word}', and no {last} of that name."
        return ConfigError(what, choices(word, known[last], last))
    hint = choices(word, known, "groups")
    names: dict[str, str] = {}
    for each, found in known.items():
        for name in found:
            names.setdefault(name, each)
    close = get_close_matches(word, names, n=1)
    if close and not hint.startswith("Did you mean"):
        hint = f"Did you mean '{names[close[0]]}={close[0]}'? {hint}"
    return ConfigError(f"There is no group '{word}', and nothing of that name in one.", hint)


def make_console() -> Any:
    """Rich in a terminal; wide plain lines in a pipe, one option a line."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def show_group(console: Any, group: str, found: Sequence[yamls.Choice]) -> None:
    """One group: each choice of ``found`` with its description and its options."""
    from rich.text import Text

    console.print(Text(group, style="bold underline"))
    for choice in found:
        origin = f"  (from {choice.module})" if choice.module else ""
        title = (
            Text("  ").append(f"{group}={choice.name}", style="bold cyan").append(f"  {choice.description}")
        )
        console.print(title.append(origin, style="yellow"))
        try:
            rows = options_of(choice)
        except ConfigError as error:
            # Of a plugin: the others are listed all the same.
            console.print(Text(f"      {error.what}", style="red"))
            continue
        if rows:
            print_rows(console, rows)
    console.print()


def options_of(choice: yamls.Choice) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each option."""
    meaning = yamls.comments(choice.path) if choice.path else {}
    given = yamls.values(choice.path) if choice.path else {}
    # A yaml may give a component other defaults, under another name.
    name = str(given.get("name", choice.name))
    if choice.group in registry.ROOMS and name in registry.names(choice.group):
        options = registry.options(registry.get(choice.group, name))
        return [
            (
                key,
                registry.spell(option.annotation),
                spell(given.get(key, "(required)" if option.required else option.default)),
                meaning.get(key, ""),
            )
            for key, option in options.items()
        ]
    given.pop("defaults", None)
    found = flat(given, empty=True)
    return [(key, "", spell(value), meaning.get(key, "")) for key, value in found.items()]


def spell(value: Any) -> str:
    """A value as one would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(spell(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {spell(item)}" for key, item in value.items()) + "}"
    return str(value)


def print_rows(console: Any, rows: list[tuple[str, str, str, str]]) -> None:
    """Columns side by side; the last one goes on below itself."""
    from mannlab.cli.help import lines

    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines(
        console,
        [
            ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])
            for row in rows
        ],
        indent=6,
    )
