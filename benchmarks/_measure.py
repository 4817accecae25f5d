"""What the benchmarks measure with."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mannlab.progress import counting
from mannlab.training.environment import hold_memory


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


def against_textbook(
    script: str,
    about: str,
    title: str,
    columns: Sequence[str],
    sizes: tuple[str, str, Sequence[int]],
    measure: Callable[[int, int], dict[str, float]],
) -> None:
    """A whole benchmark: ours beside a textbook's version at several sizes, as a table and as JSON.

    Args:
        script: its name, and that of its JSON file.
        about: its docstring.
        title: of the table.
        columns: what its sizes are, then each way.
        sizes: the option that gives sizes, the key of one in the JSON file, and the default.
        measure: a size and a number of rounds to seconds of each way, ``ours`` and ``textbook`` among them.
    """
    option, key, default = sizes
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument(f"--{option}", dest="sizes", type=int, nargs="+", default=list(default))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hold_memory()
    table = Table(title=title)
    for column in (*columns, "textbook / ours"):
        table.add_column(column, justify="right")
    found = []
    for size in arguments.sizes:
        seconds = measure(size, arguments.rounds)
        ratio = seconds["textbook"] / seconds["ours"]
        table.add_row(f"{size:,}", *(show(value) for value in seconds.values()), f"{ratio:.1f}")
        found.append({key: size, **seconds})
    Console().print(table)
    target = Path(f"outputs/benchmarks/{script}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"threads": arguments.threads, "steps": found}, indent=2) + "\n")


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
