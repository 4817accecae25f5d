"""Logging: everything in the run's file, tidy lines in the terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

MUTED = "\033[33m{}\033[0m"
ALARM = "\033[31m{}\033[0m"


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


class Terminal(logging.StreamHandler[Any]):
    """Writes to ``sys.stdout`` or what ``where`` names, as it is then: a progress bar may stand in for it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = getattr(sys, self.where)
        super().emit(record)


def console(stream: str = "stdout") -> None:
    """Show the log in the terminal, too; on ``stderr`` where standard output is for answers."""
    root = logging.getLogger()
    for known in root.handlers:
        if isinstance(known, Terminal):
            known.where = stream
            return
    handler = Terminal(stream)
    handler.setFormatter(Line("%(message)s"))
    root.addHandler(handler)


def to_file(text: str) -> None:
    """An error for the log file alone; the terminal shows it in its own way."""
    record = logging.LogRecord("mannlab", logging.ERROR, __file__, 0, "%s", (text,), None)
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
