"""The Triton step of the dense memory against the memory in torch, on a GPU if there is one, and interpreted.

As for the other Triton kernels, the interpreter gets a process of its own: there this same file is run, and
its class with the comparisons collected. It computes in float64.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.memory.dense import DenseMemory, DenseState
from mannlab.model import MANN, backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = find_spec("triton") is not None
RUNS_HERE = HAS_TRITON and (INTERPRETED or torch.cuda.is_available())
DEVICE = "cpu" if INTERPRETED else "cuda"
if RUNS_HERE:
    from mannlab.kernels.ntm import gpu

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")

# B, N, W, read heads, write heads, largest shift
SHAPES = [
    (1, 1, 1, 1, 1, 0),
    (2, 5, 3, 1, 1, 1),
    (3, 9, 5, 2, 3, 2),
    (2, 16, 4, 3, 2, 0),
    (1, 33, 7, 1, 2, 2),
    (2, 7, 20, 5, 1, 3),  # eight heads' room for six, and every shift there is
    (1, 128, 20, 1, 1, 1),
]


def fresh_process(arguments: list[str], root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "TRITON_INTERPRET" and not name.startswith("PYTEST_")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env={**kept, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_comparisons_in_the_interpreter(root: Path) -> None:
    tests = f"{__file__}::TestKernels"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = fresh_process(["-m", "pytest", *options, tests], root, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


@pytest.mark.slow
def test_without_triton_there_is_no_such_step(root: Path) -> None:
    script = """
    import sys

    sys.modules["triton"] = None
    from mannlab.memory.dense import DenseMemory
    from mannlab.model import MANN
    from mannlab.contracts import Bits, StreamSpec, Vector
    import torch

    memory = DenseMemory(slots=5, width=3)
    assert memory.on_gpu(memory.init_state(1)) is None
    options = {"name": "lstm", "hidden": 3}, {"name": "dense", "slots": 5, "width": 3}
    MANN(*options, StreamSpec({"x": Vector(3)}, Bits(2)))({"x": torch.zeros(1, 2, 3)})
    """
    done = fresh_process(["-c", textwrap.dedent(script)], root)
    assert done.returncode == 0, done.stderr


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="there it is taken on purpose")
def test_taken_on_a_gpu_only_and_for_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    from mannlab.kernels.ntm import gpu

    memory = DenseMemory(slots=5, width=3)
    assert memory.on_gpu(memory.init_state(2)) is None

    def like(slots: int, width: int, dtype: torch.dtype = torch.float32) -> Any:
        return SimpleNamespace(is_cuda=True, device="cuda", shape=(2, slots, width), dtype=dtype)

    monkeypatch.setattr(gpu, "available", lambda: True)
    monkeypatch.setattr(gpu, "_runs", lambda device: True)
    assert gpu.serves(like(128, 20))
    assert not gpu.serves(like(128, 20, torch.float16))
    assert not gpu.serves(like(gpu.MOST_SLOTS + 1, 1))
    assert not gpu.serves(like(1024, 512))
    monkeypatch.setattr(gpu, "_runs", lambda device: False)
    assert not gpu.serves(like(128, 20))
    monkeypatch.setattr(gpu, "available", lambda: False)
    assert not gpu.serves(like(128, 20))


@needs_triton
def test_where_triton_does_not_work_torch_does(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    from mannlab.kernels.ntm import gpu

    def broken(*parts: Any, **options: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    gpu._runs.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(gpu, "ntm_step", broken)
            assert not gpu._runs(torch.device("cpu"))
            assert not gpu._runs(torch.device("cpu"))
        assert caplog.messages == [
            "The dense memory's kernels do not run here: RuntimeError: Failed to find C compiler"
        ]
    finally:
        gpu._runs.cache_clear()


@pytest.mark.slow
@needs_triton
def test_both_kernels_compile_for_hopper(root: Path, tmp_path: Path) -> None:
    """Without a GPU: the interpreter passes kernels that the compiler refuses, and knows of no barriers."""
    done = fresh_process(["-c", textwrap.dedent(COMPILE)], root, TRITON_CACHE_DIR=str(tmp_path))
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    for line in done.stdout.splitlines():
        kernel, slots, wide, local, barriers = line.split()
        assert int(wide) > 0 or int(slots) < 128, f"{kernel} reads less than 16 bytes at once"
        assert int(local) == 0, f"{kernel} uses memory for want of registers"
        assert int(barriers) >= 3, f"{kernel} reads what other threads may not have written yet"


COMPILE = """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mannlab.kernels.ntm import gpu, triton_kernels as kernels

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        print("triton before 3.3 compiles by another interface")
        raise SystemExit(77)
    NAMES = "NORM SMALLEST N W H V S TILE COLUMNS SLOTS HEADS ALL MOVES".split()

    def compile(kernel, sizes, said, missing):
        numbers, options = gpu._sizes(*sizes)
        constants = dict(zip(NAMES, numbers)) | dict.fromkeys(missing)
        constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
        types = {"said": said, "on_said": said, "valid": "*i1"}
        signature = {}
        for name in kernel.arg_names:
            kind = "i32" if name.endswith("stride") else types.get(name, "*fp32")
            signature[name] = "constexpr" if name in constants else kind
        attributes = {
            (place,): [["tt.divisibility", 16]]
            for place, (name, kind) in enumerate(signature.items())
            if kind.startswith("*") or name.endswith("stride")
        }
        source = ASTSource(kernel, signature, constants, attributes)
        ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
        wide = sum("ld.global" in line and ".v4.b32" in line for line in ptx.splitlines())
        print(kernel.__name__, sizes[0], wide, ptx.count(".local"), ptx.count("bar.sync"))

    for sizes in ((128, 20, 2, 1, 3), (1024, 64, 6, 2, 3), (5, 3, 3, 1, 1)):
        for kernel in (kernels.forward, kernels.backward):
            compile(kernel, sizes, "*fp32", ["valid"])
            if sizes[0] == 128:
                compile(kernel, sizes, "*bf16", ["on_new_memory", "on_new_weights"])
"""


def problem(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[DenseMemory, list[Tensor]]:
    """A memory, and an interface, rows and weights for it."""
    batch, slots, width, readers, writers, reach = shape
    torch.manual_seed(sum(shape))
    sizes = {"slots": slots, "width": width, "read_heads": readers, "write_heads": writers}
    memory = DenseMemory(**sizes, max_shift=reach)
    interface = torch.randn(batch, memory.interface_size, dtype=dtype)
    rows = torch.randn(batch, slots, width, dtype=dtype)
    weights = torch.softmax(torch.randn(batch, readers + writers, slots, dtype=dtype), -1)
    return memory, [part.to(DEVICE) for part in (interface, rows, weights)]


def in_torch(memory: DenseMemory, inputs: list[Tensor], valid: Tensor | None) -> list[Tensor]:
    reads, after = memory.step(inputs[0], DenseState(*inputs[1:]), valid)
    # Those of padding are nobody's business.
    return [reads if valid is None else reads * valid.to(reads.dtype).unsqueeze(1), *after]


def by_kernels(memory: DenseMemory, inputs: list[Tensor], valid: Tensor | None) -> list[Tensor]:
    state = DenseState(*inputs[1:])
    step = memory.on_gpu(state)
    assert step is not None
    reads, after = step(inputs[0], state, valid)
    return [reads, *after]


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    ons = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs]
    return list(torch.autograd.grad(outputs, inputs, ons))


def assert_same(fast: list[Tensor], slow: list[Tensor], **tolerance: float) -> None:
    names = ["reads", "memory", "weights", "on interface", "on memory", "on weights"]
    for name, one, other in zip(names, fast, slow, strict=True):
        torch.testing.assert_close(one, other, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def compare(memory: DenseMemory, inputs: list[Tensor], valid: Tensor | None, **tolerance: float) -> None:
    found = []
    for run in (by_kernels, in_torch):
        leaves = [part.clone().requires_grad_() for part in inputs]
        outputs = run(memory, leaves, valid)
        found.append([*outputs, *gradients(outputs, leaves)])
    assert_same(*found, **(tolerance or {"rtol": 1e-9, "atol": 1e-11}))


class TestKernels:
    __test__ = RUNS_HERE

    @pytest.fixture(autouse=True)
    def unwritten_is_nan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "fill", float("nan"))

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("padded", [None, torch.float64, torch.bool])
    def test_outputs_and_gradients(self, shape: tuple[int, ...], padded: torch.dtype | None) -> None:
        memory, inputs = problem(shape)
        valid = None
        if padded is not None:
            steps = torch.arange(2 * shape[0]).reshape(-1, 2).to(DEVICE) % 4 == 0
            valid = steps.to(padded)[:, 0]  # of a longer sequence: not in one piece
        compare(memory, inputs, valid)

    @pytest.mark.parametrize("tile", [(4, 4), (16, 8), (32, 64)])
    def test_memories_larger_than_a_tile(self, tile: tuple[int, int], monkeypatch: Any) -> None:
        monkeypatch.setattr(gpu, "TILE_NUMBERS", tile[0])
        monkeypatch.setattr(gpu, "WEIGHT_NUMBERS", tile[1])
        gpu._sizes.cache_clear()
        try:
            compare(*problem((1, 13, 3, 2, 2, 2)), None)
        finally:
            gpu._sizes.cache_clear()

    @pytest.mark.parametrize("factor", [0.0, 1e-3, 12.0])
    def test_words_near_zero_and_far_from_it(self, factor: float) -> None:
        memory, (interface, rows, weights) = problem((2, 9, 5, 2, 1, 1))
        compare(memory, [interface * factor, rows * factor, weights], None)

    def test_weights_too_small_for_a_logarithm(self) -> None:
        memory, (interface, rows, weights) = problem((2, 9, 5, 1, 1, 1))
        sharp = torch.zeros_like(weights)
        sharp[..., 0] = 1
        gates = slice(memory.heads * (memory.width + 1), memory.heads * (memory.width + 2))
        interface[:, gates] = -40  # previous weights alone, so that most slots have none
        compare(memory, [interface, rows, sharp], None)

    def test_an_initial_state_that_is_one_row_for_all(self) -> None:
        memory, (interface, rows, weights) = problem((3, 9, 5, 1, 2, 1))
        leaves = [interface, rows[0], weights[0]]
        found = []
        for run in (by_kernels, in_torch):
            mine = [part.clone().requires_grad_() for part in leaves]
            outputs = run(memory, [mine[0], *(part.expand(3, -1, -1) for part in mine[1:])], None)
            found.append([*outputs, *gradients(outputs, mine)])
        assert_same(*found)

    @pytest.mark.parametrize("used", [[0], [1], [2], [0, 2]])
    def test_outputs_that_nobody_uses(self, used: list[int]) -> None:
        memory, inputs = problem((2, 9, 5, 2, 1, 1))
        found = []
        for run in (by_kernels, in_torch):
            leaves = [part.clone().requires_grad_() for part in inputs]
            outputs = run(memory, leaves, torch.tensor([True, False], device=DEVICE))
            some = [outputs[n] for n in used]
            found.append([*outputs, *gradients(some, leaves)])
        assert_same(*found)

    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)]
    )
    def test_other_types_of_interface(self, dtype: torch.dtype, tolerance: float) -> None:
        """Rows and weights in float32, as under autocast; the gradient is rounded to the interface's type."""
        memory, inputs = problem((2, 17, 6, 2, 1, 1), torch.float32)
        spoken = inputs[0].to(dtype)
        leaves = [spoken.clone().requires_grad_(), *(part.clone().requires_grad_() for part in inputs[1:])]
        outputs = by_kernels(memory, leaves, None)
        fast = [*outputs, *gradients(outputs, leaves)]
        assert [part.dtype for part in fast] == [torch.float32] * 3 + [dtype] + [torch.float32] * 2
        doubles = [part.double().requires_grad_() for part in (spoken, *inputs[1:])]
        outputs = in_torch(memory, doubles, None)
        slow = [*outputs, *gradients(outputs, doubles)]
        bounds = [2e-5] * 3 + [tolerance] + [2e-5] * 2
        for one, other, bound in zip(fast, slow, bounds, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=bound, atol=bound)

    def test_many_steps_feed_one_another(self) -> None:
        memory, (_, rows, weights) = problem((2, 9, 5, 1, 1, 1))
        interface = torch.randn(2, 6, memory.interface_size, dtype=torch.float64, device=DEVICE)
        valid = (torch.arange(6) < torch.tensor([[6], [3]])).to(DEVICE)
        found = []
        for run in (by_kernels, in_torch):
            leaves = [part.clone().requires_grad_() for part in (interface, rows, weights)]
            reads, state = [], leaves[1:]
            for t in range(6):
                read, *state = run(memory, [leaves[0][:, t], *state], valid[:, t])
                reads.append(read)
            outputs = [torch.stack(reads, 1), *state]
            found.append([*outputs, *gradients(outputs, leaves)])
        assert_same(*found, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("mixed", [False, True])
    def test_in_a_model(self, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a GPU, also in mixed precision, where what the memory hears is rounded."""
        monkeypatch.setattr(backend, "fused", lambda *parts: None)
        monkeypatch.setattr(backend, "_on_device", lambda kind, memory, x, state: memory.on_gpu(state.memory))
        torch.manual_seed(0)
        options = {"name": "lstm", "hidden": 4}, {"name": "dense", "slots": 5, "width": 3, "init": "learned"}
        model = MANN(*options, StreamSpec({"x": Vector(3)}, Bits(2))).to(DEVICE)
        x = torch.randn(2, 4, 3, device=DEVICE)
        valid = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]], device=DEVICE)
        found = []
        for kind in ("auto", "eager"):
            model.backend = kind
            model.zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=mixed):
                logits, state = model.run({"x": x}, valid)
            assert state.memory.memory.dtype == torch.float32 or kind == "eager"
            logits.float().square().sum().backward()
            found.append([logits.detach().float(), *(p.grad for p in model.parameters())])
        bound = 0.05 if mixed else 1e-4
        torch.testing.assert_close(*found, rtol=bound, atol=bound)

    def test_twice_is_refused(self) -> None:
        memory, inputs = problem((1, 5, 3, 1, 1, 1))
        leaves = [part.requires_grad_() for part in inputs]
        reads = by_kernels(memory, leaves, None)[0]
        (on,) = torch.autograd.grad(reads.square().sum(), leaves[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            on.sum().backward()

    def test_writing_to_what_the_backward_pass_needs_is_noticed(self) -> None:
        memory, inputs = problem((1, 5, 3, 1, 1, 1))
        reads = by_kernels(memory, [inputs[0].requires_grad_(), *inputs[1:]], None)[0]
        inputs[1].zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            reads.sum().backward()

    def test_the_trial_goes_through(self) -> None:
        gpu._runs.cache_clear()
        assert gpu._runs(torch.device(DEVICE))

    def test_for_a_subclass_it_does_not_speak(self) -> None:
        class Loud(DenseMemory):
            pass

        assert "on_gpu" not in vars(Loud)
