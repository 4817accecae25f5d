"""``list``: every part with its options."""

from __future__ import annotations

from typing import Any

from mannlab import compose, registry
from mannlab.cli import yamls
from mannlab.errors import ConfigError, choices

USAGE = """usage: mannlab list [group ...] [plugins=[module,...]]

Lists controllers, memories and tasks with their options (type, default); or, by name, any group of
configurations, such as: mannlab list memory, mannlab list optimizer."""


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
    wanted = [word for word in rest if "=" not in word and not word.startswith("-")]
    for word in wanted:
        if word not in known:
            raise ConfigError(f"There is no group '{word}'.", choices(word, known, "groups"))
    console = make_console()
    if not wanted or set(wanted) & set(registry.ROOMS):
        registry.load_builtins()
    for group in wanted or [name for name in yamls.ORDER if name in registry.ROOMS]:
        show_group(console, group, folders)
    if not wanted:
        others = [name for name in known if name not in registry.ROOMS]
        console.print(f"[dim]also: mannlab list {' | '.join(others)}[/]")
    return 0


def make_console() -> Any:
    """Rich in a terminal; wide plain lines in a pipe, one option a line."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def show_group(console: Any, group: str, folders: list[Any]) -> None:
    """One group: each choice with its description and its options."""
    from rich.text import Text

    console.print(Text(group, style="bold underline"))
    for choice in yamls.choices_of(group, folders):
        origin = ""
        if group in registry.ROOMS and choice.name in registry.names(group):
            module = registry.get(group, choice.name).__module__
            origin = "" if module.startswith("mannlab.") else f"  (from {module})"
        title = (
            Text("  ").append(f"{group}={choice.name}", style="bold cyan").append(f"  {choice.description}")
        )
        console.print(title.append(origin, style="yellow"))
        rows = options_of(choice)
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
    return [
        (key, "", spell(value), meaning.get(key, "")) for key, value in given.items() if key != "defaults"
    ]


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
