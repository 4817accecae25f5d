"""The Triton kernels against definitions in float64: on the GPU if there is one, and in triton's interpreter.

Triton decides when a kernel is defined whether to interpret it, so the interpreter gets a process of its own:
there this same file is run, and its class with the comparisons collected.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = find_spec("triton") is not None
RUNS_HERE = HAS_TRITON and (INTERPRETED or torch.cuda.is_available())
DEVICE = "cpu" if INTERPRETED else "cuda"
if RUNS_HERE:
    from mannlab.kernels.bag import triton_kernels as kernels

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")

# T, K, N, D
SHAPES = [
    (1, 1, 1, 1),
    (1, 32, 9, 33),
    (3, 5, 11, 7),
    (2, 3, 1, 16),  # one row for all
    (4, 2, 30, 130),  # two blocks, the second almost empty
    (2, 70, 13, 8),  # more rows than a tile
    (2, 3, 5, 600),  # more columns than one program of the row kernels holds
]
TYPES = [torch.float32, torch.bfloat16, torch.float16]


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


@pytest.mark.slow
def test_without_triton_or_a_gpu_it_says_so(root: Path) -> None:
    script = """
    import importlib
    import sys

    import torch

    sys.modules["triton"] = None
    from mannlab.kernels.bag import triton_kernels

    assert not triton_kernels.available()
    one = torch.ones(1, 1)
    try:
        triton_kernels.forward(one, one.long() * 0, one)
    except RuntimeError as error:
        assert "triton is not installed" in str(error), error
    else:
        raise AssertionError("no error")

    del sys.modules["triton"]
    try:
        import triton
    except ImportError:
        raise SystemExit
    importlib.reload(triton_kernels)
    assert not triton_kernels.interpreted()
    assert triton_kernels.available() == torch.cuda.is_available()
    try:
        triton_kernels.forward(one, one.long() * 0, one)
    except RuntimeError as error:
        assert "CUDA" in str(error), error
    else:
        raise AssertionError("no error")
    """
    done = fresh_process(["-c", textwrap.dedent(script)], root)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_triton
def test_every_kernel_compiles_for_hopper(root: Path, tmp_path: Path) -> None:
    """Without a GPU: the interpreter passes kernels that the compiler refuses, such as changing types."""
    done = fresh_process(["-c", textwrap.dedent(COMPILE)], root, TRITON_CACHE_DIR=str(tmp_path))
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    for line in done.stdout.splitlines():
        kernel, wide, spills = line.split()
        assert int(wide) > 0, f"{kernel} reads less than 16 bytes at once"
        assert int(spills) == 0, f"{kernel} spills registers"


COMPILE = """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mannlab.kernels.bag import triton_kernels as kernels

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        print("triton before 3.3 compiles by another interface")
        raise SystemExit(77)
    scalars = "log_beta1 log_beta2 rest1 rest2 size root_scale eps scale clip".split()
    types = dict.fromkeys(scalars, "fp32") | {"step": "i32", "last_step": "*i64", "row_ids": "*i64"}
    types |= dict.fromkeys(["rows", "order", "starts", "sources"], "*i64")
    types |= dict.fromkeys(["into", "moment1", "moment2", "grad"], "*fp32")

    def compile(kernel, value, sizes, warps, **constants):
        signature, constants = {}, {"K": 32, "D": 512, **sizes, **constants}
        constants = {name: constants[name] for name in kernel.arg_names if name in constants}
        for name in kernel.arg_names:
            signature[name] = "constexpr" if name in constants else types.get(name, "*" + value)
        attributes = {
            (place,): [["tt.divisibility", 16]]
            for place, kind in enumerate(signature.values())
            if kind.startswith("*")
        }
        source = ASTSource(kernel, signature, constants, attributes)
        options = kernels._options(warps)
        ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
        wide = sum("ld.global" in line and ".v4.b32" in line for line in ptx.splitlines())
        print(kernel.__name__, wide, ptx.count(".local"))

    for value, itemsize in (("fp32", 4), ("bf16", 2)):
        for tile, names in (
            (kernels.bag_tile(8192, 32, 512, itemsize), ["_forward_kernel"]),
            (kernels.bag_tile(8192, 32, 512, 4), ["_atomic_kernel"] if itemsize == 4 else []),
            (kernels.dot_tile(32, 512, itemsize), ["_weight_gradient_kernel"]),
        ):
            for name in names:
                sizes = dict(zip(("BLOCKS", "BLOCK_K", "BLOCK_D"), tile.sizes))
                compile(getattr(kernels, name), value, sizes, tile.warps)
        chunk, warps = kernels.row_chunk(512)
        sizes = {"BLOCKS": 1, "BLOCK_E": 8, "BLOCK_D": chunk}
        compile(kernels._adam_kernel, value, sizes, warps)
        for name in ("_sorted_kernel", "_squares_kernel", "_adam_from_factors_kernel"):
            compile(getattr(kernels, name), value, sizes, warps, sources=None)
            compile(getattr(kernels, name), value, sizes, warps, K=0)
"""


def guarded(tensor: Tensor) -> Tensor:
    """A copy between NaNs: what is read beside it shows in the results."""
    around = torch.full((tensor.numel() + 64,), torch.nan, dtype=tensor.dtype, device=DEVICE)
    inside = around[32:-32].view(tensor.shape)
    inside.copy_(tensor)
    return inside


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A result to write, all NaN, and NaN around it."""
    return guarded(torch.full(shape, torch.nan, dtype=dtype))


def assert_untouched_around(tensor: Tensor) -> None:
    base = tensor._base
    assert base is not None
    flat = base.flatten()
    assert flat[:32].isnan().all()
    assert flat[-32:].isnan().all()


def problem(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0, wide: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, rows, weights, and the gradient of the output. Rows repeat, within bags and across."""
    bags, per_bag, slots, width = shape
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(slots, width, generator=generator).to(dtype)
    rows = torch.randint(slots, (bags, per_bag), generator=generator)
    weights = torch.randn(bags, per_bag, generator=generator).to(dtype)
    grad = torch.randn(bags, width, generator=generator).to(dtype)
    rows = rows if wide else rows.int()
    return guarded(values), rows.to(DEVICE), guarded(weights), guarded(grad)


def dense_gradient(values: Tensor, rows: Tensor, weights: Tensor, grad: Tensor) -> Tensor:
    parts = weights.double().unsqueeze(-1) * grad.double().unsqueeze(1)
    into = torch.zeros(values.shape, dtype=torch.float64, device=values.device)
    return into.index_add(0, rows.flatten().long(), parts.flatten(0, 1))


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    """In units of the largest value: sums of few terms in float32."""
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


class TestKernels:
    __test__ = RUNS_HERE

    # -------------------------------------------------------------- sums

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_forward(self, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        values, rows, weights, _ = problem(shape, dtype)
        expected = torch.einsum("tk,tkd->td", weights.double(), values[rows].double())
        out = poisoned(shape[0], shape[3])
        assert kernels.forward(values, rows, weights, out) is out
        assert_close(out, expected)
        assert_untouched_around(out)
        own = kernels.forward(values, rows, weights)
        assert own.dtype == dtype
        assert_close(own, expected, 2e-6 if dtype == torch.float32 else 1e-2)

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_weight_gradient(self, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        values, rows, _, grad = problem(shape, dtype)
        out = poisoned(*shape[:2])
        assert kernels.weight_gradient(values, rows, grad, out) is out
        assert_close(out, torch.einsum("td,tkd->tk", grad.double(), values[rows].double()), 4e-6)
        assert_untouched_around(out)
        assert kernels.weight_gradient(values, rows, grad).dtype == torch.float32

    @pytest.mark.parametrize("dtype", TYPES[:2])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_atomic_value_gradient(self, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        values, rows, weights, grad = problem(shape, dtype)
        into = guarded(torch.ones(values.shape))
        assert kernels.value_gradient_atomic(grad, rows, weights, into) is into
        assert_close(into, 1 + dense_gradient(values, rows, weights, grad), 1e-5)
        assert_untouched_around(into)

    @pytest.mark.parametrize("exact", [True, False])
    @pytest.mark.parametrize("dtype", TYPES[:2])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_sorted_value_gradient(
        self, shape: tuple[int, int, int, int], dtype: torch.dtype, exact: bool
    ) -> None:
        values, rows, weights, grad = problem(shape, dtype)
        index = kernels.reverse_index(rows, exact=exact)
        expected = dense_gradient(values, rows, weights, grad)[index.row_ids]
        expected[index.row_ids < 0] = 0
        out = poisoned(len(index.row_ids), shape[3])
        kernels.value_gradient_sorted(grad, *index, weights, out)
        assert_close(out, expected, 4e-6)
        assert_untouched_around(out)
        assert torch.equal(out, kernels.value_gradient_sorted(grad, *index, weights))
        squares = kernels.squared_norms(grad, *index, weights)
        assert_close(squares, expected.square().sum(1), 1e-5)

    def test_rows_of_32_bits(self) -> None:
        for shape in SHAPES[:4]:
            values, rows, weights, grad = problem(shape, wide=False)
            wide = rows.long()
            assert torch.equal(kernels.forward(values, rows, weights), kernels.forward(values, wide, weights))
            dots = [kernels.weight_gradient(values, some, grad) for some in (rows, wide)]
            assert torch.equal(*dots)
            index, other = kernels.reverse_index(rows), kernels.reverse_index(wide)
            assert index.row_ids.dtype == torch.int32
            assert all(torch.equal(a.long(), b) for a, b in zip(index, other, strict=True))
            sums = [kernels.value_gradient_sorted(grad, *some, weights) for some in (index, other)]
            assert torch.equal(*sums)

    def test_tiles_without_masks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # As at full size: several turns over whole tiles, and several blocks.
        monkeypatch.setattr(kernels, "BYTES_IN_FLIGHT", 0)
        monkeypatch.setattr(kernels, "PROGRAMS_WANTED", 0)
        monkeypatch.setattr(kernels, "PROGRAM_BYTES", 64)
        monkeypatch.setattr(kernels, "ROWS_IN_FLIGHT", 4)
        values, rows, weights, grad = problem((2, 16, 20, 32))
        tile = kernels.bag_tile(2, 16, 32, 4)
        assert tile.sizes == (2, 4, 16)
        expected = torch.einsum("tk,tkd->td", weights.double(), values[rows].double())
        assert_close(kernels.forward(values, rows, weights, poisoned(2, 32)), expected)
        dots = torch.einsum("td,tkd->tk", grad.double(), values[rows].double())
        assert_close(kernels.weight_gradient(values, rows, grad, poisoned(2, 16)), dots, 4e-6)
        into = kernels.value_gradient_atomic(grad, rows, weights, torch.zeros_like(values))
        assert_close(into, dense_gradient(values, rows, weights, grad), 1e-5)

    def test_weights_that_are_zero_do_not_hide_what_is_not_finite(self) -> None:
        values, rows, weights, _ = problem((2, 3, 8, 4))
        rows.copy_(torch.tensor([[1, 2, 3], [4, 5, 6]]))
        values[[0, 7]] = torch.nan
        assert kernels.forward(values, rows, weights).isfinite().all()
        values[5] = torch.inf
        assert kernels.forward(values, rows, weights).isfinite().all(1).tolist() == [True, False]

    def test_gradients_that_are_not_finite_stay_with_their_rows(self) -> None:
        values, rows, weights, grad = problem((2, 3, 8, 4))
        rows.copy_(torch.tensor([[1, 1, 3], [4, 6, 6]]))
        grad[0] = torch.nan
        index = kernels.reverse_index(rows)
        broken = [True, True, False, False]
        found = kernels.value_gradient_sorted(grad, *index, weights)
        assert found.isnan().any(1).tolist() == found.isnan().all(1).tolist() == broken
        assert kernels.squared_norms(grad, *index, weights).isnan().tolist() == broken
        into = kernels.value_gradient_atomic(grad, rows, weights, torch.zeros_like(values))
        assert into.isnan().any(1)[index.row_ids].tolist() == broken

    def test_nothing_to_read(self) -> None:
        values = torch.ones(4, 3, device=DEVICE)
        for bags, per_bag in ((0, 2), (2, 0)):
            rows = torch.zeros(bags, per_bag, dtype=torch.int64, device=DEVICE)
            weights, grad = torch.ones(rows.shape, device=DEVICE), torch.ones(bags, 3, device=DEVICE)
            assert torch.equal(kernels.forward(values, rows, weights), torch.zeros_like(grad))
            assert kernels.weight_gradient(values, rows, grad).shape == rows.shape
            assert not kernels.value_gradient_atomic(grad, rows, weights, torch.zeros_like(values)).any()
            for exact in (True, False):
                index = kernels.reverse_index(rows, exact=exact)
                assert [len(part) for part in index] == [0, 1, 0]
                assert kernels.value_gradient_sorted(grad, *index, weights).shape == (0, 3)
                assert kernels.squared_norms(grad, *index, weights).shape == (0,)

    def test_reverse_index(self) -> None:
        rows = torch.tensor([[7, 2, 7], [2, 9, 0]], device=DEVICE)
        order, starts, row_ids = kernels.reverse_index(rows)
        assert order.tolist() == [5, 1, 3, 0, 2, 4]
        assert starts.tolist() == [0, 1, 3, 5, 6]
        assert row_ids.tolist() == [0, 2, 7, 9]
        order, starts, row_ids = kernels.reverse_index(rows, exact=False)
        assert order.tolist() == [5, 1, 3, 0, 2, 4]
        assert starts.tolist() == [0, 1, 3, 5, 6, 6, 6]
        assert row_ids.tolist() == [0, 2, 7, 9, -1, -1]

    def test_entries_of_several_reads(self) -> None:
        slots, width = 9, 33
        parts = [problem((bags, per_bag, slots, width), seed=bags) for bags, per_bag in ((2, 5), (3, 4))]
        expected = sum(dense_gradient(*part) for part in parts)
        rows, weights = (torch.cat([part[which].flatten() for part in parts]) for which in (1, 2))
        grad = torch.cat([part[3] for part in parts])
        sources = torch.tensor([0] * 5 + [1] * 5 + [2] * 4 + [3] * 4 + [4] * 4, device=DEVICE)
        index = kernels.reverse_index(rows)
        out = poisoned(len(index.row_ids), width)
        kernels.value_gradient_sorted(grad, *index, weights, out, sources=sources)
        assert_close(out, expected[index.row_ids], 4e-6)
        squares = kernels.squared_norms(grad, *index, weights, sources=sources)
        assert_close(squares, expected[index.row_ids].square().sum(1), 1e-5)
        one, other = adam_state(slots, width), adam_state(slots, width)
        kernels.adam_rows(*one, index.row_ids, out, 1, 0.01)
        kernels.adam_from_factors(*other, grad, *index, weights, 1, 0.01, sources=sources)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)

    # -------------------------------------------------------------- Adam

    @pytest.mark.parametrize("width", [1, 33, 600])
    @pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
    @pytest.mark.parametrize("exact", [True, False])
    def test_adam_has_the_moments_of_dense_adam(
        self, width: int, betas: tuple[float, float], exact: bool
    ) -> None:
        slots, (beta1, beta2), lr, eps = 7, betas, 0.05, 1e-8
        state, fused = adam_state(slots, width), adam_state(slots, width)
        reference = state[0].double().clone()
        first, second = torch.zeros_like(reference), torch.zeros_like(reference)
        last = [0] * slots
        for step in range(1, 8):
            values, rows, weights, grad = problem((2, 2, slots - 1, width), seed=step)
            full = torch.zeros_like(reference)
            full[:-1] = dense_gradient(values, rows, weights, grad)
            first = beta1 * first + (1 - beta1) * full
            second = beta2 * second + (1 - beta2) * full**2
            touched = rows.unique()
            root = (second / (1 - beta2**step)).sqrt() + eps
            moved = reference - lr * first / (1 - beta1**step) / root
            reference[touched] = moved[touched]
            for row in touched.tolist():
                last[row] = step

            index = kernels.reverse_index(rows, exact=exact)
            sums = kernels.value_gradient_sorted(grad, *index, weights)
            kernels.adam_rows(*state, index.row_ids, sums, step, lr, *betas, eps)
            kernels.adam_from_factors(*fused, grad, *index, weights, step, lr, *betas, eps)
            for found, moment1, moment2, steps in (state, fused):
                assert_close(moment1[touched], first[touched], 4e-6)
                assert_close(moment2[touched], second[touched], 4e-6)
                assert_close(found, reference, 4e-6)
                assert steps.tolist() == last
        assert last[-1] == 0, "a row that is never read"
        assert max(later - 1 for later in last[:-1]) >= 1
        assert min(last[:-1]) < 7, "some row missed the last step"
        for found in (*state[:3], *fused[:3]):
            assert_untouched_around(found)

    def test_adam_of_all_rows_is_that_of_torch(self) -> None:
        state = adam_state(4, 5)
        parameter = torch.nn.Parameter(state[0].double())
        optimizer = torch.optim.Adam([parameter], lr=0.03, betas=(0.8, 0.99), eps=1e-6)
        for step in range(1, 21):
            grad = torch.randn(4, 5, generator=torch.Generator().manual_seed(step)).to(DEVICE)
            parameter.grad = grad.double()
            optimizer.step()
            kernels.adam_rows(*state, torch.arange(4, device=DEVICE), grad, step, 0.03, 0.8, 0.99, 1e-6)
        assert_close(state[0], parameter.detach(), 1e-5)

    @pytest.mark.parametrize("missed", [2, 50, 5000])
    def test_adam_after_many_steps(self, missed: int) -> None:
        values, first, second, last = state = adam_state(3, 4)
        first[1], second[1], last[1] = 2.0, 3.0, 100
        grad = torch.full((1, 4), 0.5, device=DEVICE)
        before = values[1].double().clone()
        step = 100 + missed
        kernels.adam_rows(*state, torch.tensor([1], device=DEVICE), grad, step, 0.1)
        m, v = 2 * 0.9**missed + 0.1 * 0.5, 3 * 0.999**missed + 0.001 * 0.25
        assert_close(first[1], torch.full((4,), m, device=DEVICE), 1e-6)
        assert torch.allclose(second[1], torch.full((4,), v, device=DEVICE), rtol=1e-5)
        moved = 0.1 * m / (1 - 0.9**step) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
        assert_close(values[1], before - moved, 1e-5)
        assert last.tolist() == [0, step, 0]

    def test_adam_in_half_precision(self) -> None:
        state = adam_state(4, 33, torch.bfloat16, torch.int64)
        exact = adam_state(4, 33)
        exact[0].copy_(state[0])
        rows = torch.tensor([3, 1], device=DEVICE)
        grad = torch.randn(2, 33, generator=torch.Generator().manual_seed(3)).to(DEVICE)
        kernels.adam_rows(*state, rows, grad.bfloat16(), 1, 0.5)
        kernels.adam_rows(*exact, rows, grad.bfloat16().float(), 1, 0.5)
        assert_close(state[0], exact[0], 1e-2)
        assert_close(state[1], exact[1])

    def test_scale_and_clip(self) -> None:
        values, rows, weights, grad = problem((3, 2, 6, 9))
        index = kernels.reverse_index(rows)
        sums = kernels.value_gradient_sorted(grad, *index, weights)
        one, other = adam_state(6, 9), adam_state(6, 9)
        kernels.adam_rows(*one, index.row_ids, (sums * 0.5).clamp(-0.2, 0.2), 1, 0.01)
        limits = {"scale": 0.5, "clip": 0.2}
        kernels.adam_from_factors(*other, grad, *index, weights, 1, 0.01, **limits)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
        assert (sums.abs() > 0.4).any()
        grad[0, 0] = torch.nan
        kernels.adam_from_factors(*other, grad, *index, weights, 2, 0.01, **limits)
        assert other[0][rows[0], 0].isnan().all(), "clipping must not hide what is not a number"
        assert values.shape == (6, 9)

    # -------------------------------------------------------------- errors

    def test_wrong_arguments_are_refused(self) -> None:
        values, rows, weights, grad = problem((2, 3, 5, 4))
        with pytest.raises(TypeError, match="float64"):
            kernels.forward(values.double(), rows, weights.double())
        with pytest.raises(ValueError, match="contiguous"):
            kernels.forward(values, rows, weights.t().contiguous().t())
        with pytest.raises(ValueError, match="shape"):
            kernels.forward(values, rows, weights[:1])
        with pytest.raises(ValueError, match="shape"):
            kernels.weight_gradient(values, rows, grad[:1])
        with pytest.raises(TypeError, match="float32"):
            kernels.value_gradient_atomic(grad, rows, weights, values.bfloat16())
        index = kernels.reverse_index(rows)
        with pytest.raises(ValueError, match="shape"):
            kernels.value_gradient_sorted(grad, *index, weights[:, :2].contiguous())
        sums = kernels.value_gradient_sorted(grad, *index, weights)
        with pytest.raises(ValueError, match="from 1"):
            kernels.adam_rows(*adam_state(5, 4), index.row_ids, sums, 0, 0.1)
        with pytest.raises(ValueError, match="shape"):
            kernels.adam_rows(*adam_state(5, 3), index.row_ids, sums, 1, 0.1)


def adam_state(slots: int, width: int, dtype: torch.dtype = torch.float32, steps: Any = torch.int32) -> Any:
    """Values, both moments, and the steps of the last updates."""
    values = torch.randn(slots, width, generator=torch.Generator().manual_seed(9)).to(dtype)
    moments = [guarded(torch.zeros(slots, width)) for _ in range(2)]
    return guarded(values), *moments, torch.zeros(slots, dtype=steps, device=DEVICE)
