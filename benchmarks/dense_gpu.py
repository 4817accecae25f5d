"""Dense memory on a GPU: a training step by each backend, and how near it comes to what limits it.

    python benchmarks/dense_gpu.py --out dense_gpu.json

The copy task's shape: 42 steps, 128 x 20, LSTM 100. Backends are measured in turns in one run, each after it
was held to eager's outputs and gradients. A fraction of 1 is the time of the step if nothing but that limit
was there: ``launches``, as many empty kernels; ``bytes``, what the memory's steps and their history have to
move, at the speed of a copy; ``FLOPs``, the products of controller, interface and memory, at the speed of a
large product. Kernels inside a graph count as launches too, though they start faster than others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bag_gpu import copy_bandwidth
from dense import BITS, HIDDEN, SLOTS, STEPS, WIDTH, model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mannlab.model import MANN, backend

KINDS = ("eager", "compiled", "graphs", "fused")
# The second call of a shape records a graph.
WARM_UPS = 4
console = Console()


def problem(batch: int, device: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(batch)
    x, wanted = torch.rand(batch, STEPS, BITS + 1), torch.rand(batch, STEPS, BITS).round()
    return x.to(device), wanted.to(device)


def outputs_and_gradients(net: MANN, x: Tensor, wanted: Tensor) -> list[Tensor]:
    net.zero_grad()
    logits = net({"x": x})
    binary_cross_entropy_with_logits(logits, wanted).backward()
    return [logits.detach(), *(parameter.grad.clone() for parameter in net.parameters())]


def largest_difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Of any of them, relative to the largest number of its tensor."""
    parts = zip(found, wanted, strict=True)
    return max(float((one - other).abs().max() / other.abs().max().clamp_min(1e-12)) for one, other in parts)


def training_step(net: MANN, x: Tensor, wanted: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-4, momentum=0.9)

    def once() -> None:
        loss = binary_cross_entropy_with_logits(net({"x": x}), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return once


def seconds(call: Callable[[], Any], repeats: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats


def kernels_of(call: Callable[[], Any]) -> int:
    """How many kernels and copies the device runs."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def least_bytes(batch: int, heads: int = 2) -> int:
    """Of the memory's steps, forward and back: rows, weights, their gradients, and the history."""
    rows, weights = SLOTS * WIDTH, heads * SLOTS
    forward = 2 * rows + 2 * weights + (3 * heads + 1) * SLOTS
    back = 3 * rows + 4 * weights + (3 * heads + 1) * SLOTS
    return 4 * batch * STEPS * (forward + back)


def least_flops(batch: int, heads: int = 2) -> int:
    """Products of controller, interface and memory; backward is twice forward."""
    interface = heads * (WIDTH + 6) + 2 * WIDTH
    controller = 4 * HIDDEN * (BITS + 1 + WIDTH + HIDDEN) + HIDDEN * interface
    memory = SLOTS * WIDTH * (heads + 3)
    return 3 * 2 * batch * STEPS * (controller + memory)


def limits(device: str) -> dict[str, float]:
    """Seconds of a launch, bytes a second and FLOPs a second, as measured here."""
    small = torch.zeros(1, device=device)
    large = torch.randn(8192, 8192, device=device)
    seconds(lambda: large @ large, 2)
    return {
        "launch": seconds(lambda: small.add_(1), 20000),
        "bytes": copy_bandwidth(20),
        "flops": 2 * 8192**3 / seconds(lambda: large @ large, 10),
    }


def measure(batch: int, kinds: list[str], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """By backend: seconds of a training step, kernels it runs and its difference from eager."""
    x, wanted = problem(batch, device)
    steps: dict[str, Callable[[], None]] = {}
    found: dict[str, dict[str, float]] = {}
    torch.manual_seed(0)
    first = model("eager").to(device)
    truth = outputs_and_gradients(first, x, wanted)
    for kind in kinds:
        net = model(kind).to(device)
        net.load_state_dict(first.state_dict())
        console.print(backend.describe(kind, net.controller, net.memory, torch.device(device)))
        for _ in range(WARM_UPS):
            results = outputs_and_gradients(net, x, wanted)
        steps[kind] = training_step(net, x, wanted)
        seconds(steps[kind], 2)
        found[kind] = {"difference": largest_difference(results, truth)}
        found[kind]["kernels"] = kernels_of(steps[kind])
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            times[kind].append(seconds(steps[kind], 5))
    for kind in kinds:
        found[kind]["seconds"] = statistics.median(times[kind])
    return found


def show(found: dict[str, Any], limit: dict[str, float]) -> None:
    title = (
        f"A training step: {STEPS} steps, {SLOTS} x {WIDTH}, LSTM {HIDDEN}, {torch.cuda.get_device_name()}"
    )
    table = Table(title=title)
    columns = ("batch", "", "ms", "times fused", "kernels", "launches", "bytes", "FLOPs", "differs by")
    for column in columns:
        table.add_column(column, justify="right")
    for batch, kinds in found.items():
        for kind, row in kinds.items():
            taken = row["seconds"]
            parts = (
                row["kernels"] * limit["launch"],
                least_bytes(int(batch)) / limit["bytes"],
                least_flops(int(batch)) / limit["flops"],
            )
            relative = f"{taken / kinds['fused']['seconds']:.2f}" if "fused" in kinds else "-"
            fractions = [f"{part / taken:.3f}" for part in parts]
            numbers = (f"{taken * 1e3:.3f}", relative, f"{row['kernels']:.0f}")
            table.add_row(batch, kind, *numbers, *fractions, f"{row['difference']:.1e}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 128, 1024])
    parser.add_argument("--backends", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("dense_gpu: needs a CUDA device; nothing measured.")
        return
    limit = limits("cuda")
    found = {
        str(batch): measure(batch, arguments.backends, arguments.rounds, "cuda")
        for batch in arguments.batches
    }
    show(found, limit)
    if arguments.out:
        facts = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "limits": limit}
        arguments.out.write_text(json.dumps({**facts, "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
