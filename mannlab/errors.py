"""Errors meant for the person at the keyboard.

A :class:`MannlabError` says what was wrong, what is allowed and what to do; the program prints it
on one screen, without a stack trace (``HYDRA_FULL_ERROR=1`` shows the trace).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class MannlabError(Exception):
    """Something a user can mend.

    Args:
        what: what was wrong, naming the key or the file.
        hint: what is allowed and how to mend it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}\n{hint}" if hint else what)
        self.what = what
        self.hint = hint


class ConfigError(MannlabError):
    """An option that is unknown, of the wrong type or impossible."""


class DataError(MannlabError):
    """Data that is missing, truncated or malformed."""


class CheckpointError(MannlabError):
    """A checkpoint that is missing, refused or of another configuration."""


def choices(word: str, known: Iterable[str], label: str = "known") -> str:
    """A hint that lists what there is, the closest match to ``word`` first."""
    names = sorted(known)
    listing = f"{label}: {', '.join(names) or '(none)'}"
    close = get_close_matches(str(word), names, n=1)
    return f"Did you mean '{close[0]}'? {listing}" if close else listing


def require(condition: bool, what: str, hint: str = "") -> None:
    """Raise :class:`ConfigError` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(what, hint)


def at_least(kind: str, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise :class:`ConfigError` for the first option whose value is below its least.

    Args:
        kind: ``"task"``, ``"memory"``, ...: the first part of the key.
        sizes: option to (value, least).
    """
    for key, (value, least) in sizes.items():
        require(value >= least, f"{kind}.{key}: {value} is not allowed.", f"It must be at least {least}.")


def at_least_one(kind: str, **sizes: int) -> None:
    """Raise :class:`ConfigError` for the first of these options of a ``kind`` that is below 1."""
    at_least(kind, {key: (value, 1) for key, value in sizes.items()})
