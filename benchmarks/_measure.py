"""What the benchmarks measure with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mannlab.progress import counting


def in_turns(candidates: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, float]:
    """The least of ``rounds`` results of each, in turns; of several, after one that does not count."""
    if rounds > 1:
        for run in candidates.values():
            run()
    best = dict.fromkeys(candidates, float("inf"))
    with counting("Measuring", rounds * len(candidates), "times") as advance:
        for _ in range(rounds):
            for key, run in candidates.items():
                # Twice, so that one does not start on caches that the other has filled.
                best[key] = min(best[key], run(), run() if rounds > 1 else best[key])
                advance(1)
    return best


def show(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:,.3f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def resident() -> int:
    """Bytes of this process in physical memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def forget_peak() -> None:
    """Let the peak of physical memory be what it is now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes that this process had in physical memory since."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
