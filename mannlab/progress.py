"""How far something long has come: a line that moves in terminals, now and then a plain line in logs.

Everything that takes over two seconds says so through here. In a terminal a line on standard error shows
what is done, a rate and the time left, and goes when it is done. Elsewhere nothing is said of what is over
within two seconds; then a line comes at most every ten.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds before the first plain line
EVERY = 10.0  # seconds between two of them
REDRAWN = 0.12  # seconds between two looks of a line in a terminal

Item = TypeVar("Item")
Advance = Callable[[int], None]

# Whoever has a line of a terminal, for which there is one at a time.
_owners: list[object] = []


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def own(owner: object) -> None:
    """Take the terminal's line: until :func:`disown`, others say nothing in terminals."""
    _owners.append(owner)


def disown(owner: object) -> None:
    """Give the terminal's line back."""
    if owner in _owners:
        _owners.remove(owner)


def progress(items: Iterable[Item], title: str, unit: str = "") -> Iterator[Item]:
    """``items``, saying how many are done; of a sequence also how many are left."""
    with counting(title, len(items) if isinstance(items, Sized) else None, unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def counting(title: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
    """What to call with how much was done since the last call.

    Args:
        title: such as ``Drawing characters``.
        total: how much there is to do, if that is known.
        unit: what is counted, such as ``characters``.
    """
    if sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        yield Plain(title, total, unit)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Around one thing that takes seconds and cannot say how far it has come."""
    if not sys.stderr.isatty():
        tell(f"{title} ...")
        began = time.monotonic()
        yield
        if time.monotonic() - began > PATIENCE:
            tell(f"{title}: done in {clock(time.monotonic() - began)}")
        return
    with _bar(title, None, ""):
        yield


class Plain:
    """Counts, and writes a line to the log now and then."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.began = time.monotonic()
        self.due = self.began + PATIENCE

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now >= self.due:
            self.due = now + EVERY
            tell(f"{self.title}: {said(self.done, self.total, self.unit, now - self.began)}")


def tell(line: str) -> None:
    """A line to the log, or to standard error where no log was set up."""
    if log.hasHandlers():
        log.info("%s", line)
    else:
        print(line, file=sys.stderr, flush=True)


def said(done: int, total: int | None, unit: str, seconds: float) -> str:
    """Such as ``120 of 1,623 drawings, 60/s, 0:00:25 left``."""
    rate = done / max(seconds, 1e-9)
    parts = [f"{done:,}" + ("" if total is None else f" of {total:,}") + (f" {unit}" if unit else "")]
    parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
    if total is not None and done > 1:  # the first may have compiled something
        parts.append(f"{clock((total - done) / rate)} left")
    return ", ".join(parts)


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[Advance]:
    if _owners:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    began, done, drawn = time.monotonic(), 0, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[facts]}"))
    # Drawn when told, not by a thread: what is being measured is not to be disturbed.
    bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    line: Any = bar.add_task(title, total=total, facts="")

    def advance(count: int) -> None:
        nonlocal done, drawn
        done += count
        now = time.monotonic()
        if now - drawn >= REDRAWN or done == total:
            drawn = now
            bar.update(line, completed=done, facts=said(done, total, unit, now - began), refresh=True)

    own(bar)
    try:
        with bar:
            yield advance
    finally:
        disown(bar)
