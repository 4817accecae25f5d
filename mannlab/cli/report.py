"""``report``: runs compared, in the terminal, in files and on one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mannlab.errors import ConfigError, choices
from mannlab.files import replacing

USAGE = """usage: mannlab report [FOLDER ...] [by=KEY,...] [metric=NAME,...] [to=FILE,...]

Compares runs: those in the folders and below them (run folders, sweeps, outputs itself, which is the
default). Prints a table for each task, and writes one HTML page that needs no server and no network.

  by=controller,memory   what tells groups of runs apart: any keys of config.yaml, such as memory.slots;
                         by default those that differ, without the seed. Options of the task always count.
  metric=NAME,...        which metrics to show, such as bit_errors_per_sequence (of the test set) or
                         test_length_50/bit_errors_per_sequence; by default the main ones of the task
  to=FILE,...            files to write instead of FOLDER/report.html: *.html, *.csv, *.md, *.json;
                         to=csv, md or json prints that instead of the table, for pipes; to=none: no file

The runs of a group (its seeds) give a mean and a 95 % confidence interval. Only runs that finished are
averaged; those that are running, failed or broken are listed. An HTML page holds learning curves,
comparisons, generalisation to other sizes, pictures, and the command that makes each run again; CSV has a
line for each group and metric."""
KEYS = ("by", "metric", "to")
FORMATS = ("html", "csv", "md", "json")
PRINTED = ("csv", "md", "json")
PAGE = "report.html"


@dataclass
class Wanted:
    """What was asked for."""

    folders: list[str] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    metric: list[str] = field(default_factory=list)
    to: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """Report; returns the exit code."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0
    wanted = read_arguments(arguments)
    from mannlab.report import groups, runs, tables

    found = groups.sections(runs.collect(wanted.folders), wanted.by, wanted.metric)
    printed = [word for word in wanted.to if word in PRINTED]
    if printed:
        sys.stdout.write(render(found, printed[0], arguments))
    else:
        tables.show(_console(), found)
    written = [Path(word).expanduser() for word in wanted.to if word not in (*PRINTED, "none")]
    for path in written or ([] if wanted.to else [Path(wanted.folders[0]).expanduser() / PAGE]):
        write(path, render(found, path.suffix.lstrip("."), arguments))
        if not printed:
            print(f"{'page' if path.suffix == '.html' else 'file':12}{path}")
    return 0


def read_arguments(arguments: Sequence[str]) -> Wanted:
    """What was asked for.

    Raises:
        ConfigError: a word cannot be read.
    """
    wanted = Wanted()
    for word in arguments:
        key, equals, value = word.partition("=")
        if equals and key in KEYS:
            values = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
            if not values:
                raise ConfigError(f"{key}: a value is missing.", USAGE)
            getattr(wanted, key).extend(values)
        elif word.startswith("-"):
            raise ConfigError(f"There is no flag '{word}'.", USAGE)
        elif equals and not Path(word).expanduser().exists():
            raise ConfigError(f"'{key}' is no option of report.", choices(key, KEYS, "options"))
        else:
            wanted.folders.append(word)
    for word in wanted.to:
        if word not in (*PRINTED, "none") and Path(word).suffix.lstrip(".") not in FORMATS:
            allowed = ", ".join(f"*.{name}" for name in FORMATS)
            raise ConfigError(f"to: '{word}' is not allowed.", f"allowed: {allowed}, csv, md, json, none")
    wanted.folders = wanted.folders or ["outputs"]
    return wanted


def render(found: Any, kind: str, arguments: Sequence[str]) -> str:
    """The report in one of ``FORMATS``."""
    from mannlab.report import page, tables

    if kind == "html":
        return page.Page(found, arguments).html()
    makers = {"csv": tables.comma_separated, "md": tables.markdown, "json": tables.as_json}
    return makers[kind](found)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        ConfigError: the place cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"to: cannot write {path}: {error.strerror}", "Name another file with to=."
        ) from error


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    # A file or a pipe has no width to fit.
    return console if console.is_terminal else Console(highlight=False, width=200)
