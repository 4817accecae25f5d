"""One thread or two for a training step of the default job: which is faster on this machine?

    python benchmarks/threads.py

Each round is a training step (forward, backward, Adam) with either number of threads, in turns in one run.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table

from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.model import assemble


def step_seconds(
    memory: dict[str, object], batch_size: int, threads: tuple[int, ...], rounds: int
) -> list[float]:
    """The median seconds of a step for each number of threads."""
    torch.manual_seed(0)
    model, task = assemble({"controller": {"name": "lstm"}, "memory": memory, "task": {"name": "copy"}})
    optimizer = torch.optim.Adam(model.parameters())
    batch = task.batch(Split("val", 1, level=20), Draws(0, "val"), 0, batch_size)
    found: list[list[float]] = [[] for _ in threads]
    for turn in range(rounds + 1):
        for times, count in zip(found, threads, strict=True):
            torch.set_num_threads(count)
            began = time.perf_counter()
            loss = task.score(model(batch.inputs, batch.valid), batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if turn:
                times.append(time.perf_counter() - began)
    return [sorted(times)[len(times) // 2] for times in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    table = Table(title="A training step of copy, length 20, ms")
    for column in ("memory", "batch", *(f"{count} threads" for count in arguments.threads), "last / first"):
        table.add_column(column, justify="right")
    for memory in ({"name": "dense"}, {"name": "sparse"}, {"name": "none"}):
        for batch_size in (4, 16, 64):
            found = step_seconds(memory, batch_size, tuple(arguments.threads), arguments.rounds)
            cells = [f"{seconds * 1e3:.1f}" for seconds in found]
            table.add_row(memory["name"], str(batch_size), *cells, f"{found[-1] / found[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
