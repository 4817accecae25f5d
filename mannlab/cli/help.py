"""``--help``: what can be typed."""

from __future__ import annotations

from typing import Any

from mannlab import compose, registry
from mannlab.cli import yamls

EXAMPLES = (
    ("mannlab", "copy, with a dense memory and an LSTM"),
    ("mannlab task=associative_recall memory=none", "other parts"),
    ("mannlab controller.hidden=200 optimizer.lr=3e-4", "any option of any part"),
    ("mannlab experiment=ntm_copy trainer=gpu", "a named combination, on a GPU"),
    ("mannlab -m memory=dense,none seed=1,2,3", "a sweep, each job in a fresh process"),
    ('mannlab -m sweep=optuna "optimizer.lr=tag(log,interval(1e-4,1e-2))"', "a search by Optuna"),
    ("mannlab debug=fast", "ten steps, to see whether it runs"),
    ("mannlab ckpt_path=last", "go on with the newest run like this one"),
)
COMMANDS = (
    ("train", "the default: the word may be left out"),
    ("eval RUN [ckpt=last] [task.lengths=[200]]", "test a run again, perhaps with other options"),
    ('predict RUN text="..." [file=FILE out=FILE]', "what a run answers to texts, such as translations"),
    ("resume sweep=DIR | run=DIR", "what is left of a sweep, or a run in its own folder"),
    ("eval last, inspect last, resume last, ...", "the newest run in outputs/"),
    (
        "inspect RUN [sample=3] [split=length_20]",
        "one sample step by step: what is read, written and answered",
    ),
    ("report [FOLDER] [by=controller,memory] [to=FILE]", "runs compared: tables, and a page with charts"),
    ("list [memory]", "every part with its options, their types and defaults"),
    ("new memory NAME [--package DIR]", "a plugin package with a memory, controller or task of your own"),
    ("bench [dense]", "how fast this machine is, beside other packages where they are installed"),
)
FLAGS = (
    ("-m", "sweep over comma-separated values"),
    ("--cfg job [--resolve]", "print the configuration, do not run"),
    ("--info searchpath", "where configurations come from"),
    ("--hydra-help", "Hydra's own flags"),
    ("--version", "the version"),
)


def main(arguments: list[str]) -> int:
    """Print the page."""
    from rich.console import Console

    registry.load_plugins(compose.named_plugins(arguments))
    folders = compose.yaml_folders(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=110)
    _heading(console)
    _rows(console, "Examples", EXAMPLES)
    _rows(console, "Commands", COMMANDS)
    _choices(console, folders)
    _rows(console, "Keys", [(f"{key}=", words) for key, words in yamls.keys().items()])
    _rows(console, "Flags", FLAGS)
    console.print('\nTab completion: [cyan]eval "$(mannlab -sc install=bash)"[/]   (or zsh, fish)')
    console.print("[dim]python -m mannlab is the same as mannlab.[/]")
    return 0


def _heading(console: Any) -> None:
    console.print("[bold]mannlab[/]  memory-augmented neural networks: any controller, any memory, any task.")
    console.print(
        "Choose parts by group=name, set options by key=value; a run lands in its own folder in outputs/."
    )


def lines(console: Any, rows: Any, indent: int, width: int = 0) -> None:
    """Two columns; what is too long goes on below itself."""
    from textwrap import wrap

    from rich.text import Text

    width = width or max(len(left) for left, _ in rows)
    room = max(20, console.width - indent - width - 2)
    for left, right in rows:
        first, *more = wrap(right, room) or [""]
        line = Text(" " * indent).append(left.ljust(width) if first else left.rstrip(), style="cyan")
        console.print(line.append(f"  {first}" if first else ""))
        for rest in more:
            console.print(Text(" " * (indent + width + 2) + rest))


def _rows(console: Any, title: str, rows: Any) -> None:
    console.print(f"\n[bold]{title}[/]")
    lines(console, rows, indent=2)


def _choices(console: Any, folders: list[Any]) -> None:
    chosen = yamls.defaults()
    console.print("\n[bold]Groups[/]  [dim](* unless you say otherwise)[/]")
    for group in yamls.groups(folders):
        rows = []
        for choice in yamls.choices_of(group, folders):
            star = " *" if chosen.get(group) == choice.name else ""
            origin = f"  [{choice.module}]" if choice.module else ""
            rows.append((choice.name + star, choice.description + origin))
        if rows:
            console.print(f"  [bold]{group}=[/]")
            lines(console, rows, indent=4, width=20)
