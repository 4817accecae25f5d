"""How near the weighted sum of rows, its gradients and its Adam step come to the speed of a copy, on a GPU.

    python benchmarks/bag_gpu.py --out bag.json

A fraction of 1 is as many bytes each second as ``Tensor.copy_`` of 1 GiB moves on this machine. Bytes are
those that a kernel cannot do without: a row that several tokens read counts each time in sums, once in
updates.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import embedding_bag

from mannlab.kernels.bag import triton_kernels as kernels

SHAPES = ((512, 128), (8192, 32))  # tokens, and rows that each reads with all heads
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Case(NamedTuple):
    """Attributes: ``calls``, the same work on different rows; ``bytes`` that one of them has to move."""

    name: str
    calls: list[Callable[[], Any]]
    bytes: int


class Memory(NamedTuple):
    """The memory and what Adam keeps for it."""

    values: Tensor
    moment1: Tensor
    moment2: Tensor
    last_step: Tensor
    into: Tensor


class Read(NamedTuple):
    """One step's reads, the gradient of their sums, and the reverse index."""

    rows: Tensor
    weights: Tensor
    grad: Tensor
    reverse: kernels.ReverseIndex
    row_grad: Tensor


def make_table(slots: int, width: int, dtype: torch.dtype, device: str) -> Memory:
    values = torch.randn(slots, width, device=device, dtype=dtype)
    first, second, into = (torch.zeros(slots, width, device=device) for _ in range(3))
    return Memory(values, first, second, torch.zeros(slots, dtype=torch.int32, device=device), into)


def make_read(table: Memory, tokens: int, per_token: int, skew: float) -> Read:
    """Random rows; those of low numbers the oftener the higher ``skew`` is."""
    slots, width = table.values.shape
    device, dtype = table.values.device, table.values.dtype
    drawn = torch.rand(tokens, per_token, device=device, dtype=torch.float64) ** (1 + skew)
    rows = (drawn * slots).long().clamp_(max=slots - 1)
    weights = torch.rand(tokens, per_token, device=device).to(dtype)
    grad = torch.randn(tokens, width, device=device, dtype=dtype)
    index = kernels.reverse_index(rows)
    return Read(rows, weights, grad, index, kernels.value_gradient_sorted(grad, *index, weights))


def cases(table: Memory, reads: list[Read]) -> Iterator[Case]:
    """Everything that is measured, for one shape."""
    values, moment1, moment2, last_step, into = table
    tokens, per_token = reads[0].rows.shape
    width, size = values.shape[1], values.element_size()
    unique = sum(len(read.reverse.row_ids) for read in reads) // len(reads)
    entries = tokens * per_token
    gathered, dense = entries * width * size, tokens * width * size
    numbers = entries * (8 + size)
    adam = unique * width * (2 * size + 2 * 8)

    def each(call: Callable[[Read], Any]) -> list[Callable[[], Any]]:
        return [partial(call, read) for read in reads]

    def bag(read: Read) -> Tensor:
        return embedding_bag(read.rows, values, per_sample_weights=read.weights, mode="sum")

    yield Case(
        "forward", each(lambda r: kernels.forward(values, r.rows, r.weights)), gathered + numbers + dense
    )
    yield Case("torch embedding_bag", each(bag), gathered + numbers + dense)
    yield Case(
        "weight gradient",
        each(lambda r: kernels.weight_gradient(values, r.rows, r.grad)),
        gathered + numbers + dense,
    )
    yield Case(
        "value gradient, atomic",
        each(lambda r: kernels.value_gradient_atomic(r.grad, r.rows, r.weights, into)),
        entries * width * 8 + numbers + dense,
    )
    yield Case(
        "reverse index, no wait",
        each(lambda r: kernels.reverse_index(r.rows, exact=False)),
        entries * 24,
    )
    yield Case(
        "value gradient, sorted",
        each(lambda r: kernels.value_gradient_sorted(r.grad, *r.reverse, r.weights)),
        unique * width * 4 + numbers + dense,
    )
    yield Case(
        "torch embedding_bag, and dense backward", backwards(table, reads), values.numel() * size + gathered
    )
    yield Case(
        "Adam of rows",
        each(
            lambda r: kernels.adam_rows(
                values, moment1, moment2, last_step, r.reverse.row_ids, r.row_grad, 1000, 1e-9
            )
        ),
        adam + unique * width * 4,
    )
    yield Case(
        "Adam from factors",
        each(
            lambda r: kernels.adam_from_factors(
                values, moment1, moment2, last_step, r.grad, *r.reverse, r.weights, 1000, 1e-9
            )
        ),
        adam + numbers + dense,
    )


def backwards(table: Memory, reads: list[Read]) -> list[Callable[[], Any]]:
    """The gradient of all values, as torch makes it: every row of it is written."""
    leaf = table.values.detach().requires_grad_()

    def call(read: Read) -> Any:
        out = embedding_bag(read.rows, leaf, per_sample_weights=read.weights, mode="sum")
        return torch.autograd.grad(out, leaf, read.grad)

    return [partial(call, read) for read in reads]


def seconds(calls: list[Callable[[], Any]], rounds: int) -> tuple[float, bool]:
    """The median of one call, and whether calls were replayed from a graph, without the host's part."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    run, captured = graph(calls)
    times = []
    for _ in range(rounds):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended) / 1e3 / len(calls))
    return statistics.median(times), captured


def graph(calls: list[Callable[[], Any]]) -> tuple[Callable[[], Any], bool]:
    """All calls in one launch, or one after the other where torch cannot capture them."""
    found = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(found):
            for call in calls:
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return lambda: [call() for call in calls], False
    found.replay()
    torch.cuda.synchronize()
    return found.replay, True


def copy_bandwidth(rounds: int) -> float:
    """Bytes each second, read and written, of ``copy_`` of 1 GiB."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 2**30 / seconds([lambda: target.copy_(source)], rounds)[0]


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    copy = copy_bandwidth(arguments.rounds)
    found: list[dict[str, Any]] = []
    for dtype in arguments.dtypes:
        for width in arguments.widths:
            table = make_table(arguments.slots, width, TYPES[dtype], "cuda")
            for tokens, per_token in SHAPES:
                # Several sets of rows: one alone could stay in the cache from call to call.
                reads = [make_read(table, tokens, per_token, arguments.skew) for _ in range(arguments.sets)]
                for case in cases(table, reads):
                    rate, captured = seconds(case.calls, arguments.rounds)
                    found.append(
                        {
                            "dtype": dtype,
                            "width": width,
                            "tokens": tokens,
                            "per_token": per_token,
                            "what": case.name,
                            "microseconds": rate * 1e6,
                            "gigabytes_per_second": case.bytes / rate / 1e9,
                            "fraction_of_copy": case.bytes / rate / copy,
                            "graph": captured,
                        }
                    )
                del reads
            del table
            torch.cuda.empty_cache()
    return found


def show(found: list[dict[str, Any]]) -> None:
    table = Table(title=f"Weighted sums of rows on {torch.cuda.get_device_name()}")
    for column in ("type", "D", "T x K", "what", "µs", "GB/s", "of copy"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in found:
        table.add_row(
            row["dtype"],
            str(row["width"]),
            f"{row['tokens']} x {row['per_token']}",
            row["what"] + ("" if row["graph"] else " *"),
            f"{row['microseconds']:.1f}",
            f"{row['gigabytes_per_second']:.0f}",
            f"{row['fraction_of_copy']:.2f}",
        )
    console = Console()
    console.print(table)
    console.print("* with the host's part: not captured in a graph")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--slots", type=int, default=2**20)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--dtypes", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--sets", type=int, default=4, help="how many sets of rows take turns")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--skew", type=float, default=0.0, help="0: all rows alike; higher: some read often")
    parser.add_argument(
        "--rows-in-flight", type=int, help="another number than the kernels' own; a power of 2"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not kernels.available():
        print("bag_gpu: needs triton and a CUDA device; nothing measured.")
        return
    if arguments.rows_in_flight:
        kernels.ROWS_IN_FLIGHT = arguments.rows_in_flight
    torch.manual_seed(0)
    found = measure(arguments)
    show(found)
    if arguments.out:
        properties = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "copy_gigabytes_per_second": copy_bandwidth(arguments.rounds) / 1e9,
            "slots": arguments.slots,
            "skew": arguments.skew,
            "rows_in_flight": kernels.ROWS_IN_FLIGHT,
        }
        arguments.out.write_text(json.dumps({**properties, "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
