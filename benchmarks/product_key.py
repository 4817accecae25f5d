"""Product-key memory against a feed-forward layer, the package product-key-memory, and SparseAdam.

    python benchmarks/product_key.py                        # time, space and bandwidth; minutes
    python benchmarks/product_key.py time --largest 65536   # one part, smaller
    python benchmarks/product_key.py quality                # trains three models: an hour on 2 cores

Parts: ``time`` (of forward, and of a training step, by number of values), ``space`` (what a step adds),
``bandwidth`` (of gathering values, against copying), ``quality`` (WikiText-2, with memory and without).
Prints tables; writes ``product_key.json``. A candidate is measured in turns with the feed-forward layer, and
each figure is the least of its rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _measure import forget_peak, in_turns, peak, resident, show
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mannlab.kernels.bag import RowAdam, ops
from mannlab.memory.product_key import ProductKeyMemory
from mannlab.model.hosted import MemoryLayer

SIZES = [2**14, 2**16, 2**18, 2**20, 2**22]
WIDTH, TOKENS, HEADS, KNN, KEY_WIDTH = 512, 512, 4, 32, 256
MIB = 2**20
# Dense gradients and two dense moments beside the values.
LARGEST_DENSE = 2**20
console = Console()

Step = Callable[[], float]


class Summed(nn.EmbeddingBag):
    """Values as the published code has them, with sparse gradients."""

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(rows, per_sample_weights=weights)


def layer(slots: int) -> MemoryLayer:
    """Our layer; layer norm on the queries, as the package has by default."""
    memory = ProductKeyMemory(
        slots=slots, width=WIDTH, heads=HEADS, knn=KNN, key_width=KEY_WIDTH, query_norm="layer"
    )
    return MemoryLayer(WIDTH, memory)


def ours(slots: int) -> tuple[nn.Module, list[Any]]:
    net = layer(slots)
    table = net.memory.values
    assert isinstance(net.memory, ProductKeyMemory)
    rest = [p for p in net.parameters() if p is not table.weight]  # type: ignore[union-attr]
    return net, [torch.optim.Adam(rest), RowAdam([table])]  # type: ignore[list-item]


def sparse_adam(slots: int) -> tuple[nn.Module, list[Any]]:
    net = layer(SIZES[0])
    memory = net.memory
    assert isinstance(memory, ProductKeyMemory)
    memory.keys = nn.Parameter(torch.randn(2, HEADS, math.isqrt(slots), KEY_WIDTH // 2) * 0.05)
    memory.values = Summed(slots, WIDTH, mode="sum", sparse=True)  # type: ignore[assignment]
    rest = [p for p in net.parameters() if p is not memory.values.weight]
    return net, [torch.optim.Adam(rest), torch.optim.SparseAdam([memory.values.weight])]


def package(slots: int) -> tuple[nn.Module, list[Any]]:
    from product_key_memory import PKM

    net = PKM(WIDTH, heads=HEADS, num_keys=math.isqrt(slots), topk=KNN, dim_head=KEY_WIDTH // 2)
    return net, [torch.optim.Adam(net.parameters())]


def feedforward(_: int = 0) -> tuple[nn.Module, list[Any]]:
    net = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
    return net, [torch.optim.Adam(net.parameters())]


MAKERS: dict[str, Callable[[int], tuple[nn.Module, list[Any]]]] = {
    "mannlab": ours,
    "sparse gradients and SparseAdam": sparse_adam,
    "product-key-memory and Adam": package,
}


def steps(made: tuple[nn.Module, list[Any]]) -> tuple[Step, Step]:
    """The forward pass alone, and a training step, each on new inputs; both return seconds."""
    net, optimizers = made

    def forward() -> float:
        x = torch.randn(1, TOKENS, WIDTH)
        with torch.no_grad():
            began = time.perf_counter()
            net(x)
            return time.perf_counter() - began

    def whole() -> float:
        x, wanted = torch.randn(2, 1, TOKENS, WIDTH).unbind(0)
        began = time.perf_counter()
        (net(x) - wanted).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - began

    return forward, whole


def runs(name: str, slots: int) -> bool:
    if "Adam" in name and slots > LARGEST_DENSE:
        return False
    if "package" in name or name.startswith("product"):
        try:
            import product_key_memory  # noqa: F401
        except ImportError:
            return False
    return True


def measure_time(largest: int, rounds: int = 5) -> dict[str, Any]:
    found: dict[str, Any] = {}
    table = Table(title=f"{TOKENS} tokens of {WIDTH}, {HEADS} heads of {KNN}: ms, and times the feed-forward")
    for title in ("values", "layer", "forward", "training step", "feed-forward", "step / feed-forward"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    for slots in [size for size in SIZES if size <= largest]:
        for name, make in MAKERS.items():
            if not runs(name, slots):
                continue
            made = make(slots)
            forward, whole = steps(made)
            plain_forward, plain = steps(feedforward())
            best = in_turns({"forward": forward, "plain": plain_forward}, rounds)
            best |= in_turns({"step": whole, "plain step": plain}, rounds)
            found.setdefault(str(slots), {})[name] = best
            row = [show(best["forward"]), show(best["step"]), show(best["plain step"])]
            table.add_row(f"{slots:,}", name, *row, f"{best['step'] / best['plain step']:.2f}")
            console.print(f"{slots:,} {name}: forward {row[0]}, step {row[1]} (feed-forward {row[2]}) ms")
            del made, forward, whole
            gc.collect()
    console.print(table)
    return found


def added_by_a_step(name: str, slots: int, threads: int, pipe: Any) -> None:
    """In a fresh process: what a training step adds at its peak, tables and moments being there already."""
    torch.set_num_threads(threads)
    made = MAKERS[name](slots)
    _, whole = steps(made)
    for _ in range(2):
        whole()
    for optimizer in made[1]:
        for state in optimizer.state.values():
            for part in state.values():
                if isinstance(part, Tensor):
                    part.add_(0)  # every page of it is there now
    gc.collect()
    before = resident()
    forget_peak()
    whole()
    pipe.send(peak() - before)


def measure_space(largest: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    slots = min(largest, 2**20)
    found = {}
    for name in MAKERS:
        if not runs(name, slots):
            continue
        here, there = context.Pipe(duplex=False)
        arguments = (name, slots, torch.get_num_threads(), there)
        process = context.Process(target=added_by_a_step, args=arguments)
        process.start()
        there.close()
        try:
            found[name] = here.recv()
            console.print(f"a step at {slots:,} values adds {found[name] / MIB:,.0f} MiB: {name}")
        except EOFError:
            console.print(f"a step at {slots:,} values did not fit: {name}")
        process.join()
    return {str(slots): found}


def measure_bandwidth(largest: int, rounds: int = 10) -> dict[str, Any]:
    slots = min(largest, 2**20)
    values = torch.randn(slots, WIDTH)
    source, target = torch.randn(2, 2**27 // 4).unbind(0)
    weights = torch.rand(TOKENS, HEADS * KNN)

    def timed(run: Callable[[], Any]) -> Step:
        def measure() -> float:
            began = time.perf_counter()
            run()
            return time.perf_counter() - began

        return measure

    def gather() -> Any:
        return ops.bag(values, torch.randint(slots, (TOKENS, HEADS * KNN)), weights)

    def library() -> Any:
        rows = torch.randint(slots, (TOKENS, HEADS * KNN))
        return nn.functional.embedding_bag(rows, values, per_sample_weights=weights, mode="sum")

    candidates = {
        "gather": timed(gather),
        "F.embedding_bag": timed(library),
        "copy": timed(lambda: target.copy_(source)),
        "read": timed(lambda: source.sum()),
    }
    best = in_turns(candidates, rounds)
    moved = {"copy": 2 * source.nbytes, "read": source.nbytes}
    rows = TOKENS * HEADS * KNN * WIDTH * 4
    found = {name: moved.get(name, rows) / seconds for name, seconds in best.items()}
    for name, rate in found.items():
        console.print(f"{name}: {rate / 1e9:.1f} GB/s, {100 * rate / found['copy']:.0f} % of copying")
    return found


QUALITY = {
    "4 blocks": ["memory=none", "controller.layers=4"],
    "4 blocks, memory in the third": [
        "memory=product_key",
        "memory.slots=65536",
        "memory.width=256",
        "controller.layers=4",
        "controller.memory_blocks=[2]",
    ],
    "8 blocks": ["memory=none", "controller.layers=8"],
}
COMMON = [
    *("task=language_modelling", "task.level=bpe", "task.vocabulary=4096", "controller=transformer"),
    *("controller.width=256", "controller.feedforward=1024", "controller.context=128", "threads=1"),
    *("trainer.max_steps=2400", "trainer.val_check_interval=400", "scheduler=cosine", "seed=1"),
]


def measure_quality(out: Path) -> dict[str, Any]:
    found = {}
    for name, overrides in QUALITY.items():
        folder = out / "quality" / name.replace(" ", "_").replace(",", "")
        command = [sys.executable, "-m", "mannlab", *COMMON, *overrides, f"hydra.run.dir={folder}"]
        subprocess.run(command, check=True)
        found[name] = quality_of(folder)
    print_quality(found)
    return found


def quality_of(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text())
    return {key: summary[key] for key in ("parameters", "wall_seconds", "sequences", "metrics")}


def print_quality(found: dict[str, Any]) -> None:
    table = Table(title="WikiText-2, 4,096 byte pairs, equal tokens")
    for title in ("model", "parameters", "perplexity a token", "a word", "tokens/s", "values used, %"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for name, one in found.items():
        metrics = one["metrics"]
        used = [value for key, value in metrics.items() if key.startswith("test_memory/used_percent")]
        table.add_row(
            name,
            f"{one['parameters']:,}",
            f"{metrics['test/perplexity_per_token']:.1f}",
            f"{metrics['test/perplexity_per_word']:.0f}",
            f"{one['sequences'] * 64 / one['wall_seconds']:,.0f}",
            f"{used[0]:.0f}" if used else "-",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["time", "space", "bandwidth", "quality"]
    parser.add_argument("parts", nargs="*", choices=[*names, []], default=[])
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="most values")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "time": lambda: measure_time(arguments.largest),
        "space": lambda: measure_space(arguments.largest),
        "bandwidth": lambda: measure_bandwidth(arguments.largest),
        "quality": lambda: measure_quality(arguments.out.absolute()),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "product_key.json"
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    for part in arguments.parts or names[:3]:
        # Kept at once, beside what an earlier run measured.
        found[part] = found.get(part, {}) | json.loads(json.dumps(measures[part]()))
        found["torch"], found["threads"] = torch.__version__, arguments.threads
        report.write_text(json.dumps(found, indent=2))
    console.print(f"Wrote {report}")


if __name__ == "__main__":
    main()
