"""Sparse memory against dense memory and the package dnc: time and space of a step, by number of slots.

    python benchmarks/sparse.py                      # everything, 10-15 minutes on 2 cores
    python benchmarks/sparse.py time --largest 65536 # one part, smaller
    python benchmarks/sparse.py --out some/folder

Parts: ``time`` (figure 1a of Rae et al. 2016), ``space`` (figure 1b), ``peer`` (the package ``dnc``, if it is
installed), ``floor`` (what a step at batch 1 is spent on). Prints tables; writes ``sparse.json`` and
``sparse.png``. What is compared is measured in turns in one run, and each figure is the least of its rounds:
whatever else the machine does can only add to it.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.model import MANN

SLOTS = [2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**22]
SETTINGS = {"1 head, batch 1": (1, 1), "4 heads, batch 8": (4, 8)}
WIDTH, HIDDEN, BITS = 32, 100, 8
STEPS = 10  # of the timed sequences
SPEC = StreamSpec({"x": Vector(BITS)}, Bits(BITS))
GIB = 2**30
console = Console()


def model(memory: str, slots: int, heads: int) -> MANN:
    """LSTM 100 with a memory of width 32, as in the paper's section 4.1."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"name": memory, "slots": slots, "width": WIDTH}
    options |= {"heads": heads} if memory == "sparse" else {"read_heads": heads, "write_heads": heads}
    return MANN({"name": "lstm", "hidden": HIDDEN}, options, SPEC)


def once(net: MANN, x: Tensor) -> float:
    """Seconds that a forward and backward pass take, a step."""
    began = time.perf_counter()
    net({"x": x}).sum().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    net.zero_grad()
    return seconds / x.shape[1]


def in_turns(candidates: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, float]:
    """The least of ``rounds`` results of each, measured in turns after one that does not count."""
    for run in candidates.values():
        run()
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for key, run in candidates.items():
            best[key] = min(best[key], run())
    return best


def show(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:,.3f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


# ---------------------------------------------------------------------- figure 1a: time


def measure_time(largest: int, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting, (heads, batch) in SETTINGS.items():
        sizes = [slots for slots in SLOTS if slots <= largest]
        x = torch.rand(batch, STEPS, BITS, device=device)
        nets = {slots: model("sparse", slots, heads).to(device) for slots in sizes}
        runs = {slots: (lambda net=nets[slots], x=x: once(net, x)) for slots in sizes}
        sparse = in_turns(runs, rounds=60)
        dense: dict[int, float] = {}
        for slots in sizes:
            # Rows of weights, contents and what the backward pass keeps of them, generously.
            need = 4 * batch * slots * (6 * WIDTH + 44 * heads)
            if need > 0.6 * total_memory(device):
                continue
            steps = int(max(1, min(STEPS, 0.6 * total_memory(device) // need)))
            net, part = model("dense", slots, heads).to(device), x[:, :steps]
            slow = slots >= 2**18
            dense[slots] = in_turns({0: lambda net=net, part=part: once(net, part)}, 2 if slow else 8)[0]
            again = in_turns({0: runs[slots]}, 10)[0]  # beside it, so that the ratio is of one time
            sparse[slots] = min(sparse[slots], again)
            del net
            gc.collect()
        table = Table(title=f"One step, forward + backward, ms ({setting})")
        for column in ("slots", "sparse", "dense", "dense / sparse"):
            table.add_column(column, justify="right")
        for slots in sizes:
            ratio = f"{dense[slots] / sparse[slots]:,.0f}" if slots in dense else "-"
            table.add_row(f"{slots:,}", show(sparse[slots]), show(dense.get(slots)), ratio)
        console.print(table)
        console.print(
            f"sparse at {sizes[-1]:,} slots / at {sizes[0]:,}: {sparse[sizes[-1]] / sparse[sizes[0]]:.2f}\n"
        )
        found[setting] = {"sparse_seconds": sparse, "dense_seconds": dense}
    return found


def total_memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ---------------------------------------------------------------------- figure 1b: space


def resident() -> int:
    """Bytes of this process in physical memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def added_by_a_sequence(memory: str, slots: int, steps: int, pipe: Any) -> None:
    """In a fresh process: what a sequence adds, from before its forward pass to after its backward pass."""
    torch.set_num_threads(1)
    net = model(memory, slots, heads=4)
    other = model(memory, 16, heads=4)
    other({"x": torch.rand(1, 2, BITS)}).sum().backward()  # compiles, and starts what starts once
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    x = torch.rand(1, steps, BITS)
    gc.collect()
    before = resident()
    net({"x": x}).sum().backward()
    added = resident() - before
    pipe.send({"resident_bytes": added, "parts_bytes": parts_of_a_sequence(net, memory, x)})


def parts_of_a_sequence(net: MANN, memory: str, x: Tensor) -> dict[str, int]:
    """Bytes kept for the backward pass, by what keeps them."""
    saved, seen = 0, set()

    def note(tensor: Tensor) -> Tensor:
        nonlocal saved
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen and not isinstance(tensor, torch.nn.Parameter):
            seen.add(storage.data_ptr())
            saved += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _logits, state = net.run({"x": x})
    parts = {"controller, readout and dense memory": saved}
    if memory == "sparse":
        parts |= sparse_parts(state.memory.handle.use())
    return parts


def sparse_parts(session: Any) -> dict[str, int]:
    """Bytes of the journal, of what else is kept for the backward pass, and of the rows touched."""
    journal = sum(block.journal.nbytes for block in session.blocks)
    other = sum(part.nbytes for block in session.blocks for part in block) - journal
    live = int(session.cells.live[0])
    return {
        "journal": journal,
        "interface, weights and rows read": other,
        "rows touched and their gradient": 2 * live * WIDTH * 4,
        "index (scale and order of use)": live * (4 + 16),
    }


def measure_space(largest: int, steps: int = 100) -> dict[str, Any]:
    found: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    table = Table(title=f"Added by a sequence of {steps} steps (4 heads, batch 1), MiB")
    for column in ("slots", "sparse", "dense", "dense / sparse"):
        table.add_column(column, justify="right")
    for slots in (slots for slots in SLOTS if slots <= largest):
        for memory in ("sparse", "dense"):
            if memory == "dense" and slots > 2**16:
                continue
            results = []
            for _ in range(3 if memory == "sparse" else 1):
                mine, theirs = context.Pipe()
                child = context.Process(target=added_by_a_sequence, args=(memory, slots, steps, theirs))
                child.start()
                theirs.close()
                results.append(mine.recv())
                child.join()
            found.setdefault(memory, {})[slots] = min(results, key=lambda r: r["resident_bytes"])
        sparse = found["sparse"][slots]["resident_bytes"]
        dense = found.get("dense", {}).get(slots)
        table.add_row(
            f"{slots:,}",
            f"{sparse / 2**20:.2f}",
            f"{dense['resident_bytes'] / 2**20:,.0f}" if dense else "-",
            f"{dense['resident_bytes'] / sparse:,.0f}" if dense else "-",
        )
    console.print(table)
    at = min(2**16, largest)
    for part, size in found["sparse"][at]["parts_bytes"].items():
        console.print(f"  at {at:,} slots, {part}: {size / 2**20:.2f} MiB")
    console.print()
    return found


# ---------------------------------------------------------------------- the package dnc


def peer_class() -> Any:
    """``dnc.SAM``, or None if the package is not there.

    Its index names GPU classes that faiss has on GPUs only, and trains on 100 N random vectors when it is
    made (12 GiB at a million slots): stand-ins and 4,096 vectors let it run here. Neither is in the time.
    """
    try:
        import faiss

        for name in ("StandardGpuResources", "GpuResources"):
            if not hasattr(faiss, name):
                setattr(faiss, name, type(name, (), {}))
        import dnc.faiss_index
    except ImportError:
        return None
    index = dnc.faiss_index.FAISSIndex
    original = index.__init__

    def with_few_vectors(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **{**options, "train": torch.randn(4096, options["cell_size"])})

    index.__init__ = with_few_vectors
    return dnc.SAM


def measure_peer(largest: int) -> dict[str, Any]:
    peer_of = peer_class()
    if peer_of is None:
        console.print("peer: left out; it needs the packages dnc (2.0.0b1) and faiss-cpu\n")
        return {}
    found: dict[int, dict[str, float]] = {}
    table = Table(title="One step, forward + backward, ms (1 head, batch 1), at the start of an episode")
    for column in ("slots", "mannlab", "dnc.SAM", "dnc / mannlab"):
        table.add_column(column, justify="right")
    x = torch.rand(1, STEPS, BITS)
    for slots in (slots for slots in SLOTS if slots <= min(largest, 2**20)):
        torch.manual_seed(0)
        options = {"hidden_size": HIDDEN, "num_hidden_layers": 1, "nr_cells": slots, "cell_size": WIDTH}
        peer = peer_of(BITS, sparse_reads=4, read_heads=1, **options)
        net = model("sparse", slots, heads=1)
        _, (_, kept, _) = peer(x, (None, None, None), reset_experience=True)

        def theirs(peer: Any = peer, kept: Any = kept) -> float:
            kept = {key: v.detach() if isinstance(v, Tensor) else v for key, v in kept.items()}
            began = time.perf_counter()
            out, _ = peer(x, (None, kept, None), reset_experience=True)
            out.sum().backward()
            seconds = time.perf_counter() - began
            peer.zero_grad()
            return seconds / STEPS

        rounds = 3 if slots >= 2**18 else 8
        best = in_turns({"mannlab": lambda net=net: once(net, x), "dnc": theirs}, rounds)
        found[slots] = best
        ratio = f"{best['dnc'] / best['mannlab']:,.1f}"
        table.add_row(f"{slots:,}", show(best["mannlab"]), show(best["dnc"]), ratio)
        del peer, net, kept
        gc.collect()
    console.print(table)
    console.print("Equal work: ten steps from an empty memory, so both search only rows written so far.\n")
    return {"seconds": found}


# ---------------------------------------------------------------------- the floor


def measure_floor(steps: int = 100) -> dict[str, Any]:
    """A step at batch 1, 1 head, in a long sequence; and what it is spent on."""
    x = torch.rand(1, steps, BITS)
    net, alone = (
        model("sparse", 2**16, heads=1),
        MANN({"name": "lstm", "hidden": HIDDEN}, {"name": "none"}, SPEC),
    )
    alone.stepwise = True
    best = in_turns({"whole": lambda: once(net, x), "controller": lambda: once(alone, x)}, 60)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        once(net, x)
    console.print(
        f"Floor: {best['whole'] * 1e6:.0f} µs a step ({steps} steps, 1 head, batch 1, forward + backward)"
    )
    console.print(
        f"  of which the LSTM alone, step by step with its readout: {best['controller'] * 1e6:.0f} µs"
    )
    averages = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in averages)
    shares = {event.key: event.self_cpu_time_total / total for event in averages[:14]}
    console.print(
        f"  {sum(event.count for event in averages) / steps:.0f} operations a step; under the profiler:"
    )
    for name, share in shares.items():
        console.print(f"    {share:6.1%}  {name}")
    console.print()
    return {"seconds": best, "profile_shares": shares}


# ---------------------------------------------------------------------- all together


def draw(found: dict[str, Any], path: Path) -> None:
    """Time and space against slots, as in the paper's figure 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, (setting, parts) in zip(("C0", "C1"), found.get("time", {}).items(), strict=False):
        for name, style in (("sparse", "-o"), ("dense", "--s")):
            points = dict(parts[f"{name}_seconds"])
            left.plot(
                points.keys(),
                [v * 1e3 for v in points.values()],
                style,
                color=color,
                label=f"{name}, {setting}",
            )
    left.set(xscale="log", yscale="log", xlabel="slots", ylabel="ms a step, forward + backward", title="Time")
    for name, style in (("sparse", "-o"), ("dense", "--s")):
        points = {
            slots: value["resident_bytes"] / 2**20
            for slots, value in found.get("space", {}).get(name, {}).items()
        }
        if points:
            right.plot(points.keys(), points.values(), style, label=f"{name}, 4 heads, batch 1")
    right.set(xscale="log", yscale="log", xlabel="slots", ylabel="MiB added by 100 steps", title="Space")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["time", "space", "peer", "floor", []], default=[])
    parser.add_argument("--largest", type=int, default=SLOTS[-1], help="most slots")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = arguments.parts or ["time", "space", "peer", "floor"]
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "time": lambda: measure_time(arguments.largest, arguments.device),
        "space": lambda: measure_space(arguments.largest),
        "peer": lambda: measure_peer(arguments.largest),
        "floor": measure_floor,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "sparse.json"
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    for part in parts:
        found[part] = measures[part]()
    found["versions"] = {"torch": torch.__version__, "python": platform.python_version()}
    found["threads"] = arguments.threads
    report.write_text(json.dumps(found, indent=2))
    draw(json.loads(report.read_text()), arguments.out / "sparse.png")
    console.print(f"Wrote {report} and {arguments.out / 'sparse.png'}")


if __name__ == "__main__":
    main()
