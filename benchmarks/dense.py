"""Dense memory: time and space of a training step, what the loop around it adds, and how fast data is made.

    python benchmarks/dense.py                  # everything, about 5 minutes on 2 cores
    python benchmarks/dense.py step sizes       # some parts

Parts: ``step`` (the copy task's shape, beside the package ``dnc``, if it is installed, and an LSTM alone),
``sizes`` (other batches, memories and controllers), ``space`` (long sequences, with and without
recomputation), ``loop`` (a run of the program against the bare steps), ``data`` (sequences a second). What is
compared is measured in turns in one run, and each figure is the least of its rounds. Prints tables; writes
``dense.json`` and ``dense.png``.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _measure import forget_peak, in_turns, peak, resident, show
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mannlab.contracts import Bits, Split, StreamSpec, Vector
from mannlab.draws import Draws
from mannlab.model import MANN, assemble

BATCH, STEPS, SLOTS, WIDTH, HIDDEN, BITS = 16, 42, 128, 20, 100, 8
SPEC = StreamSpec({"x": Vector(BITS + 1)}, Bits(BITS))
MIB = 2**20
console = Console()


def model(backend: str, controller: str = "lstm", slots: int = SLOTS, heads: int = 1, **options: Any) -> MANN:
    memory = {"name": "dense", "slots": slots, "width": WIDTH, "read_heads": heads, "write_heads": heads}
    driver = {"name": controller, "hidden": HIDDEN}
    return MANN(driver, memory, SPEC, backend=backend, **options)


class Alone(nn.Module):
    """An LSTM without a memory, over whole sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(BITS + 1, HIDDEN, batch_first=True), nn.Linear(HIDDEN, BITS)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.head(self.lstm(inputs["x"])[0])


class Peer(nn.Module):
    """The package ``dnc``: its DNC with one read head, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        from dnc import DNC

        options = {"num_hidden_layers": 1, "nr_cells": SLOTS, "cell_size": WIDTH, "read_heads": 1}
        options["batch_first"] = True
        self.dnc, self.head = DNC(BITS + 1, HIDDEN, **options), nn.Linear(BITS + 1, BITS)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x = inputs["x"]
        out = self.dnc(x, (None, None, None), reset_experience=True)[0]
        # Some versions give time first, whatever they are told.
        return self.head(out if out.shape[:2] == x.shape[:2] else out.transpose(0, 1))


def training_step(net: nn.Module, batch: int = BATCH, steps: int = STEPS) -> Callable[[], float]:
    """Forward, loss, backward and RMSProp; returns seconds."""
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-4, momentum=0.9)
    x, wanted = torch.rand(batch, steps, BITS + 1), torch.rand(batch, steps, BITS).round()

    def once() -> float:
        began = time.perf_counter()
        loss = binary_cross_entropy_with_logits(net({"x": x}), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - began

    return once


# ---------------------------------------------------------------------- time


def measure_step() -> dict[str, Any]:
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "fused": model("fused"),
        "eager": model("eager"),
        "compiled": model("compiled"),
    }
    made["LSTM alone"] = Alone()
    try:
        made["dnc"] = Peer()
    except ImportError:
        console.print("dnc: left out; the package is not installed")
    best = in_turns({name: training_step(net) for name, net in made.items()}, 10)
    table = Table(
        title=f"A training step of copy: batch {BATCH}, {STEPS} steps, {SLOTS} x {WIDTH}, LSTM {HIDDEN}"
    )
    for column in ("", "ms", "times fused"):
        table.add_column(column, justify="right")
    for name, seconds in best.items():
        table.add_row(name, show(seconds), f"{seconds / best['fused']:.2f}")
    console.print(table)
    step = training_step(made["fused"])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    averages = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in averages)
    shares = {event.key: event.self_cpu_time_total / total for event in averages[:8]}
    console.print("Under the profiler (compiled steps of memory and gates are inside the two nodes):")
    for name, share in shares.items():
        console.print(f"  {share:6.1%}  {name}")
    return {"seconds": best, "profile_shares": shares}


SIZES: dict[str, dict[str, Any]] = {
    "batch 1": {"batch": 1},
    "batch 16": {},
    "batch 64": {"batch": 64},
    "batch 256": {"batch": 256},
    "1,024 slots": {"slots": 1024},
    "16,384 slots": {"slots": 16384},
    "4 heads": {"heads": 4},
    "gru": {"controller": "gru"},
    "feedforward": {"controller": "feedforward"},
}


def measure_sizes() -> dict[str, Any]:
    found: dict[str, Any] = {}
    table = Table(title="A training step at other sizes, ms")
    kinds = ("eager", "compiled", "fused")
    for column in ("", *kinds, "eager / fused"):
        table.add_column(column, justify="right")
    for name, size in SIZES.items():
        batch = size.get("batch", BATCH)
        options = {key: value for key, value in size.items() if key != "batch"}
        torch.compiler.reset()  # it compiles a few shapes only, then runs others step by step
        steps = {kind: training_step(model(kind, **options), batch) for kind in kinds}
        large = options.get("slots", 0) > 4096
        for once in steps.values() if large else ():
            once()  # in_turns leaves the first out only of several
        best = in_turns(steps, 1 if large else 5)
        found[name] = best
        times = [show(best[kind]) for kind in kinds]
        table.add_row(name, *times, f"{best['eager'] / best['fused']:.2f}")
        console.print(
            f"{name}: " + ", ".join(f"{k} {ms}" for k, ms in zip(kinds, times, strict=True)) + " ms"
        )
        del steps
        gc.collect()
    console.print(table)
    return found


# ---------------------------------------------------------------------- space


def space_of(backend: str, steps: int, every: int | None, threads: int, pipe: Any) -> None:
    """In a fresh process: what a step adds to the memory in use at its peak, and how long the next takes."""
    torch.set_num_threads(threads)
    net = model(backend, checkpoint_every=every)
    training_step(net, BATCH, 2)()
    once = training_step(net, BATCH, steps)
    gc.collect()
    before = resident()
    forget_peak()
    once()
    pipe.send((peak() - before, once()))


def measure_space() -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    found: dict[str, Any] = {}
    table = Table(title="The most memory that a training step adds, and its time")
    for column in ("steps", "", "kept every", "MiB", "ms"):
        table.add_column(column, justify="right")
    for steps in (42, 500, 5000):
        root = max(2, round(steps**0.5))
        for backend, every in (("eager", None), ("fused", None), ("fused", root)):
            here, there = context.Pipe(duplex=False)
            arguments = (backend, steps, every, torch.get_num_threads(), there)
            process = context.Process(target=space_of, args=arguments)
            process.start()
            there.close()
            try:
                bytes_added, seconds = here.recv()
            except EOFError:
                bytes_added, seconds = None, None
            process.join()
            kept = "1" if every is None else str(every)
            text = "did not fit" if bytes_added is None else f"{bytes_added / MIB:,.0f}"
            found[f"{steps} {backend} {kept}"] = {"bytes": bytes_added, "seconds": seconds}
            table.add_row(f"{steps:,}", backend, kept, text, show(seconds))
            console.print(f"{steps:,} steps, {backend}, every {kept}: {text} MiB, {show(seconds)} ms")
    console.print(table)
    return found


# ---------------------------------------------------------------------- the loop around it


def measure_loop(rounds: int = 3) -> dict[str, Any]:
    """A step inside a run of the program, with logging and progress, against the bare step."""
    length = 20
    options = {"name": "copy", "min_length": length, "max_length": length}

    def bare() -> float:
        made, task = assemble({"controller": {"name": "lstm"}, "memory": {"name": "dense"}, "task": options})
        optimizer = torch.optim.Adam(made.parameters())
        draws, split = Draws(0, "train"), Split("train")
        began = 0.0
        for step in range(1100):
            if step == 100:
                began = time.perf_counter()
            batch = task.batch(split, draws, step * BATCH, BATCH)
            loss = task.score(made(batch.inputs, batch.valid), batch).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_value_(made.parameters(), 10)
            optimizer.step()
        return (time.perf_counter() - began) / 1000

    def inside() -> float:
        seconds = []
        for steps in (100, 1100):
            with tempfile.TemporaryDirectory() as folder:
                words = [f"task.{key}={value}" for key, value in options.items() if key != "name"]
                words += [f"batch_size={BATCH}", f"trainer.max_steps={steps}", "test=false", "threads=1"]
                words += ["trainer.val_check_interval=1000000", f"hydra.run.dir={folder}/run"]
                command = [sys.executable, "-m", "mannlab", *words, "trainer.accelerator=cpu"]
                subprocess.run(command, check=True, capture_output=True)
                summary = json.loads(Path(folder, "run", "summary.json").read_text())
                seconds.append(float(summary["wall_seconds"]))
        return (seconds[1] - seconds[0]) / 1000

    best = {"bare": float("inf"), "inside a run": float("inf")}
    for _ in range(rounds):
        best["bare"] = min(best["bare"], bare())
        best["inside a run"] = min(best["inside a run"], inside())
    added = best["inside a run"] / best["bare"] - 1
    console.print(
        f"A step of copy, batch {BATCH}, length {length}: bare, with its data, {show(best['bare'])} ms; "
        f"inside a run {show(best['inside a run'])} ms: {added:.1%} more\n"
    )
    return {"seconds": best, "added": added}


def measure_data(rounds: int = 20) -> dict[str, Any]:
    _, task = assemble(
        {"controller": {"name": "lstm"}, "memory": {"name": "dense"}, "task": {"name": "copy"}}
    )
    draws, split = Draws(0, "train"), Split("train")
    found: dict[str, float] = {}
    for batch in (4, 16, 64):
        began = time.perf_counter()
        for turn in range(rounds * 20):
            task.batch(split, draws, turn * batch, batch)
        found[str(batch)] = rounds * 20 * batch / (time.perf_counter() - began)
        console.print(f"copy, batches of {batch}: {found[str(batch)]:,.0f} sequences a second")
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """The backends beside each other, at each size."""
    from matplotlib.figure import Figure

    sizes = found.get("sizes")
    if not sizes:
        return
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for offset, kind in ((-0.27, "eager"), (0, "compiled"), (0.27, "fused")):
        places = [n + offset for n in range(len(sizes))]
        axes.bar(places, [1e3 * best[kind] for best in sizes.values()], width=0.27, label=kind)
    axes.set_yscale("log")
    axes.set_ylabel("training step, ms")
    axes.set_xticks(range(len(sizes)), list(sizes), rotation=30, ha="right")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "step": measure_step,
        "sizes": measure_sizes,
        "space": measure_space,
        "loop": measure_loop,
        "data": measure_data,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*measures, []], default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "dense.json"
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    for part in arguments.parts or measures:
        # Kept at once, beside what an earlier run measured.
        found[part] = json.loads(json.dumps(measures[part]()))
        found["torch"], found["threads"] = torch.__version__, arguments.threads
        report.write_text(json.dumps(found, indent=2))
    draw(found, arguments.out / "dense.png")
    console.print(f"Wrote {report}")


if __name__ == "__main__":
    main()
