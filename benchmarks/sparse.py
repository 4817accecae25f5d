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
from _measure import forget_peak, in_turns, peak, resident, show
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize, softplus

from mannlab.contracts import Bits, Memory, StreamSpec, Vector
from mannlab.model import MANN
from mannlab.registry import register

SLOTS = [2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**22]
SETTINGS = {"1 head, batch 1": (1, 1), "4 heads, batch 8": (4, 8)}
WIDTH, HIDDEN, BITS = 32, 100, 8
STEPS = 10  # of the timed sequences
SPEC = StreamSpec({"x": Vector(BITS)}, Bits(BITS))
GIB = 2**30
console = Console()


@register("memory", "textbook_dense")
class TextbookDense(Memory[tuple[Tensor, Tensor]]):
    """The Neural Turing Machine's equations written down one by one, as most public code has them."""

    def __init__(self, *, slots: int = 128, width: int = 20, heads: int = 1) -> None:
        super().__init__()
        self.slots, self.width, self.heads = slots, width, heads
        self.sizes = [width, 1, 1, 3, 1, width, width]
        self.interface_size, self.read_size = heads * (sum(self.sizes) + sum(self.sizes[:5])), heads * width

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        weights = torch.zeros(batch, 2 * self.heads, self.slots)
        weights[:, :, 0] = 1
        return torch.full((batch, self.slots, self.width), 1e-6), weights

    def address(self, memory: Tensor, before: Tensor, said: Tensor) -> Tensor:
        """All heads at once: ``said[B, H, ...]`` and weights ``[B, H, N]`` to new weights."""
        key, strength, gate, shift, power = said.split(self.sizes[:5], dim=2)
        similar = normalize(key.tanh(), dim=2) @ normalize(memory, dim=2).transpose(1, 2)
        content = torch.softmax(softplus(strength) * similar, dim=2)
        gate = torch.sigmoid(gate)
        mixed = gate * content + (1 - gate) * before
        moved = torch.stack([mixed.roll(step, dims=2) for step in (-1, 0, 1)], dim=3)
        shifted = (moved * torch.softmax(shift, dim=2).unsqueeze(2)).sum(3)
        sharp = shifted ** (1 + softplus(power))
        return sharp / (sharp.sum(2, keepdim=True) + 1e-16)

    def forward(
        self, interface: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        memory, before = state
        first, heads = sum(self.sizes[:5]), self.heads
        reading, writing = interface.split([heads * first, heads * sum(self.sizes)], dim=1)
        writing = writing.unflatten(1, (heads, -1))
        said = torch.cat([reading.unflatten(1, (heads, -1)), writing[:, :, :first]], dim=1)
        now = self.address(memory, before, said)
        reads = now[:, :heads] @ memory
        erase, add = writing[:, :, first:].chunk(2, dim=2)
        for head in range(heads):
            weights = now[:, heads + head].unsqueeze(2)
            memory = memory * (1 - weights * torch.sigmoid(erase[:, None, head]))
            memory = memory + weights * add[:, None, head].tanh()
        return reads.flatten(1), (memory, now)


def model(memory: str, slots: int, heads: int) -> MANN:
    """LSTM 100 with a memory of width 32, as in the paper's section 4.1."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"name": memory, "slots": slots, "width": WIDTH}
    options |= {"read_heads": heads, "write_heads": heads} if memory == "dense" else {"heads": heads}
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


# ---------------------------------------------------------------------- figure 1a: time


def measure_time(largest: int, device: str, wanted: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in wanted:
        heads, batch = SETTINGS[setting]
        sizes = [slots for slots in SLOTS if slots <= largest]
        x = torch.rand(batch, STEPS, BITS, device=device)
        nets = {slots: model("sparse", slots, heads).to(device) for slots in sizes}
        runs = {slots: (lambda net=nets[slots], x=x: once(net, x)) for slots in sizes}
        sparse = in_turns(runs, rounds=60)
        others: dict[str, dict[int, float]] = {"dense": {}, "textbook_dense": {}}
        for slots in sizes:
            # Rows of weights, contents and what the backward pass keeps of them, generously.
            need = 4 * batch * slots * (6 * WIDTH + 44 * heads)
            for name, found_here in others.items():
                if name != "dense" and slots not in (2**16, 2**20):
                    continue
                if need * (1 if name == "dense" else 2.5) > 0.6 * total_memory(device):
                    continue
                slow = need > GIB / 8
                steps = 1 if slow else int(max(1, min(STEPS, 0.4 * total_memory(device) // need)))
                net, part = model(name, slots, heads).to(device), x[:, :steps]
                rounds = 1 if slow else 8
                turns = {0: lambda net=net, part=part: once(net, part), 1: runs[slots]}
                both = in_turns(turns, rounds)
                found_here[slots], sparse[slots] = both[0], min(sparse[slots], both[1])
                del net, turns
                gc.collect()
        table = Table(title=f"One step, forward + backward, ms ({setting})")
        for column in ("slots", "sparse", "dense", "dense / sparse", "textbook", "textbook / sparse"):
            table.add_column(column, justify="right")
        for slots in sizes:
            cells = [f"{slots:,}", show(sparse[slots])]
            for times in others.values():
                cells.append(show(times.get(slots)))
                cells.append(f"{times[slots] / sparse[slots]:,.0f}" if slots in times else "-")
            table.add_row(*cells)
        console.print(table)
        console.print(
            f"sparse at {sizes[-1]:,} slots / at {sizes[0]:,}: {sparse[sizes[-1]] / sparse[sizes[0]]:.2f}\n"
        )
        found[setting] = {"sparse_seconds": sparse} | {f"{key}_seconds": v for key, v in others.items()}
    return found


def total_memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ---------------------------------------------------------------------- figure 1b: space


def added_by_a_sequence(memory: str, slots: int, steps: int, pipe: Any) -> None:
    """In a fresh process: what a sequence adds at its peak, forward and backward pass."""
    torch.set_num_threads(1)
    if memory == "none":
        net = other = MANN({"name": "lstm", "hidden": HIDDEN}, {"name": "none"}, SPEC)
        net.stepwise = True
    else:
        net, other = model(memory, slots, heads=4), model(memory, 16, heads=4)
    other({"x": torch.rand(1, 2, BITS)}).sum().backward()  # compiles, and starts what starts once
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    x = torch.rand(1, steps, BITS)
    gc.collect()
    before = resident()
    forget_peak()
    net({"x": x}).sum().backward()
    added = peak() - before
    pipe.send({"added_bytes": added, "parts_bytes": sparse_parts(net, x) if memory == "sparse" else {}})


def sparse_parts(net: MANN, x: Tensor) -> dict[str, int]:
    """Bytes of the journal, of what else is kept for the backward pass, and of the rows touched."""
    _logits, state = net.run({"x": x})
    session = state.memory.handle.use()
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
    table = Table(title=f"Added by a sequence of {steps} steps at its peak (4 heads, batch 1), MiB")
    for column in ("slots", "sparse", "dense", "dense / sparse", "textbook", "textbook / sparse"):
        table.add_column(column, justify="right")

    def measure(memory: str, slots: int) -> dict[str, Any] | None:
        results = []
        for _ in range(3 if memory in ("sparse", "none") else 1):
            mine, theirs = context.Pipe()
            child = context.Process(target=added_by_a_sequence, args=(memory, slots, steps, theirs))
            child.start()
            theirs.close()
            try:
                results.append(mine.recv())
            except EOFError:  # it did not fit, and was killed
                return None
            child.join()
        return min(results, key=lambda result: result["added_bytes"])

    for slots in (slots for slots in SLOTS if slots <= largest):
        cells = [f"{slots:,}"]
        for memory in ("sparse", "dense", "textbook_dense"):
            if memory != "sparse" and slots > 2**16:
                cells += ["-", "-"]
                continue
            result = measure(memory, slots)
            if result is None:
                cells += ["too large", "-"]
                continue
            found.setdefault(memory, {})[slots] = result
            size = result["added_bytes"]
            cells.append(f"{size / 2**20:,.2f}" if memory == "sparse" else f"{size / 2**20:,.0f}")
            if memory != "sparse":
                cells.append(f"{size / found['sparse'][slots]['added_bytes']:,.0f}")
        table.add_row(*cells)
    console.print(table)
    at = min(2**16, largest)
    alone = found["controller"] = measure("none", 0) or {"added_bytes": 0}
    parts = {"LSTM and readout alone, measured": alone["added_bytes"], **found["sparse"][at]["parts_bytes"]}
    parts["the rest: nodes, reads, Python"] = found["sparse"][at]["added_bytes"] - sum(parts.values())
    for part, size in parts.items():
        console.print(f"  at {at:,} slots, {part}: {size / 2**20:.2f} MiB")
    console.print()
    return found


# ---------------------------------------------------------------------- the package dnc


def peer_class() -> Any:
    """``dnc.SAM``, or None if the package is not there.

    Its index asks for GPU classes that faiss has on GPUs only, sets an attribute that present releases of
    faiss refuse, and trains on 100 N random vectors when it is made (12 GiB at a million slots). The same
    index made by hand and trained on 4,096 lets it run here; none of that is in the time.
    """
    try:
        import faiss

        for name in ("StandardGpuResources", "GpuResources"):
            if not hasattr(faiss, name):
                setattr(faiss, name, type(name, (), {}))
        import dnc.dnc
        import dnc.faiss_index
    except ImportError:
        return None

    def begin(
        self: Any, cell_size: int, nr_cells: int, K: int, num_lists: int, probes: int, **_: Any
    ) -> None:
        self.cell_size, self.nr_cells, self.K, self.device = cell_size, nr_cells, K, None
        self.num_lists, self.probes = num_lists, probes
        quantizer = self.quantizer = faiss.IndexFlatL2(cell_size)
        self.index = faiss.IndexIVFFlat(quantizer, cell_size, num_lists, faiss.METRIC_L2)
        self.index.nprobe = probes
        self.index.train(torch.randn(max(4096, num_lists), cell_size).numpy())

    dnc.faiss_index.FAISSIndex.__init__ = begin
    # Made first and thrown away by SAM's constructor; it holds an N x N matrix.
    dnc.dnc.Memory = lambda *_, **__: torch.nn.Identity()
    return dnc.SAM


def detached(value: Any) -> Any:
    """Through lists and dictionaries: what a package hands back, without its graph."""
    if isinstance(value, dict):
        return {key: detached(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(detached(part) for part in value)
    return value.detach() if isinstance(value, Tensor) else value


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
        with torch.no_grad():
            _, (_, kept, _) = peer(x, (None, None, None), reset_experience=True)

        def theirs(peer: Any = peer, kept: Any = kept) -> float:
            kept = detached(kept)
            began = time.perf_counter()
            out, _ = peer(x, (None, kept, None), reset_experience=True)
            out.sum().backward()
            seconds = time.perf_counter() - began
            peer.zero_grad()
            return seconds / STEPS

        rounds = 40 if slots < 2**16 else 10 if slots < 2**18 else 2
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
        for name, style in (("sparse", "-o"), ("dense", "--s"), ("textbook_dense", ":^")):
            points = {int(slots): value for slots, value in parts[f"{name}_seconds"].items()}
            left.plot(
                points.keys(),
                [v * 1e3 for v in points.values()],
                style,
                color=color,
                label=f"{name}, {setting}",
            )
    left.set(xscale="log", yscale="log", xlabel="slots", ylabel="ms a step, forward + backward", title="Time")
    for name, style in (("sparse", "-o"), ("dense", "--s"), ("textbook_dense", ":^")):
        points = {
            int(slots): value["added_bytes"] / 2**20
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
    parser.add_argument("--setting", choices=list(SETTINGS), help="of the part time; both if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = [arguments.setting] if arguments.setting else list(SETTINGS)
    parts = arguments.parts or ["time", "space", "peer", "floor"]
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "time": lambda: measure_time(arguments.largest, arguments.device, settings),
        "space": lambda: measure_space(arguments.largest),
        "peer": lambda: measure_peer(arguments.largest),
        "floor": measure_floor,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "sparse.json"
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    for part in parts:
        # Kept at once, beside what an earlier run measured.
        found[part] = found.get(part, {}) | json.loads(json.dumps(measures[part]()))
        report.write_text(json.dumps(found, indent=2))
    found["versions"] = {"torch": torch.__version__, "python": platform.python_version()}
    found["threads"] = arguments.threads
    report.write_text(json.dumps(found, indent=2))
    draw(json.loads(report.read_text()), arguments.out / "sparse.png")
    console.print(f"Wrote {report} and {arguments.out / 'sparse.png'}")


if __name__ == "__main__":
    main()
