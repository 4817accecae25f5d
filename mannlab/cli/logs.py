"""Logging: everything in the run's file, tidy lines in the terminal."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MUTED = "\033[33m{}\033[0m"
ALARM = "\033[31m{}\033[0m"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Line(logging.Formatter):
    """The message alone; its level where that is warning or worse, in colour on terminals."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno < logging.WARNING:
            return text
        word = f"{record.levelname.lower()}:"
        if sys.stdout.isatty():
            word = (ALARM if record.levelno >= logging.ERROR else MUTED).format(word)
        return f"{word} {text}"


class Plain(logging.Formatter):
    """Without the codes that colour a terminal: for files."""

    def format(self, record: logging.LogRecord) -> str:
        return CODES.sub("", super().format(record))


class Terminal(logging.StreamHandler[Any]):
    """Writes to ``sys.stdout`` or what ``where`` names, as it is then: a progress bar may stand in for it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        self.stream = getattr(sys, self.where)
        super().emit(record)


def console(stream: str = "stdout") -> None:
    """Show the log in the terminal, too; on ``stderr`` where standard output is for answers."""
    root = logging.getLogger()
    if root.getEffectiveLevel() > logging.INFO:
        # Where no configuration of a run says what to log: what takes long, and why.
        logging.getLogger("mannlab").setLevel(logging.INFO)
    for known in root.handlers:
        if isinstance(known, Terminal):
            known.where = stream
            return
    handler = Terminal(stream)
    handler.setFormatter(Line("%(message)s"))
    root.addHandler(handler)


@contextmanager
def warnings_kept() -> Iterator[None]:
    """Warnings of libraries go to the log file, too; the terminal shows them as it would."""
    show = warnings.showwarning

    def keep(message: Any, category: type[Warning], *rest: Any, **named: Any) -> None:
        to_file(f"{category.__name__}: {message}", logging.WARNING)
        show(message, category, *rest, **named)

    warnings.showwarning = keep
    try:
        yield
    finally:
        warnings.showwarning = show


def to_file(text: str, level: int = logging.ERROR) -> None:
    """An error for the log file alone; the terminal shows it in its own way."""
    record = logging.LogRecord("mannlab", level, __file__, 0, "%s", (text,), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            try:
                handler.emit(record)
                handler.flush()
            except OSError:
                continue


def close_files() -> None:
    """End the log files; what is logged afterwards goes to the terminal alone."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()


def reset(handlers: list[logging.Handler], level: int) -> None:
    """Close what a run added to the root logger, and put back what was there."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)
    root.setLevel(level)
