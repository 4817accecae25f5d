"""Weighted sums of rows and their gradients, against the definition, by every means."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mannlab.kernels.bag import RowTable, naive, ops
from mannlab.kernels.bag.factors import join, of_bags, reverse


@pytest.fixture(params=["compiled", "torch"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ops, "WORTH_COMPILING", 0 if request.param == "compiled" else 2**60)
    monkeypatch.setattr(ops, "LEAST_SHARE", 1)
    return str(request.param)


def draw(
    size: int, width: int, bags: int, count: int, seed: int = 0
) -> tuple[RowTable, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    table = RowTable(size, width).double()
    rows = torch.randint(0, size, (bags, count))
    weights = torch.randn(bags, count, dtype=torch.float64, requires_grad=True)
    return table, rows, weights, torch.randn(bags, width, dtype=torch.float64)


SIZES = [
    (1, 1, 1, 1),
    (50, 33, 20, 13),
    (7, 4, 3, 8),
    (5, 3, 6, 4),
    (9, 2, 1, 17),
    (4, 3, 2, 0),
    (4, 3, 0, 2),
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("gradient", ["auto", "sparse", "dense"])
@pytest.mark.parametrize("sizes", SIZES)
def test_sums_and_gradients_are_those_of_the_definition(
    means: str, sizes: tuple[int, int, int, int], gradient: str, threads: int
) -> None:
    table, rows, weights, wanted = draw(*sizes)
    table.gradient = gradient  # type: ignore[assignment]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = table(rows, weights)
        (out * wanted).sum().backward()
    finally:
        torch.set_num_threads(before)
    values, again = (x.detach().clone().requires_grad_() for x in (table.weight, weights))
    expected = naive.bag(values, rows, again)
    (expected * wanted).sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights.grad, again.grad)
    found = table.weight.grad
    assert found is not None
    assert found.is_sparse == (gradient == "sparse")
    torch.testing.assert_close(found.to_dense(), values.grad)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 9),
    width=st.integers(1, 9),
    bags=st.integers(1, 5),
    count=st.integers(1, 19),
    seed=st.integers(0, 99),
)
def test_compiled_equals_torch(size: int, width: int, bags: int, count: int, seed: int) -> None:
    table, rows, weights, wanted = draw(size, width, bags, count, seed)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for least in (0, 2**60):
            patch.setattr(ops, "WORTH_COMPILING", least)
            factors = of_bags(rows, weights.detach(), wanted)
            back = reverse(factors.rows)
            found.append(
                (
                    ops.bag(table.weight.detach(), rows, weights.detach()),
                    ops.weight_gradient(table.weight.detach(), rows, wanted),
                    ops.row_gradients(factors, back),
                    ops.squared_norm(factors, back),
                )
            )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gradcheck(means: str) -> None:
    table, rows, weights, _ = draw(6, 3, 4, 9)
    assert torch.autograd.gradcheck(lambda w: table(rows, w), (weights,))


def test_no_cell_is_left_unwritten(means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *size: empty(self, *size).fill_(torch.nan))
    table, rows, weights, wanted = draw(6, 5, 4, 11)
    assert ops.bag(table.weight.detach(), rows, weights.detach()).isfinite().all()
    assert ops.weight_gradient(table.weight.detach(), rows, wanted).isfinite().all()
    factors = of_bags(rows, weights.detach(), wanted)
    assert ops.row_gradients(factors, reverse(factors.rows)).isfinite().all()


def test_factors_of_several_passes_add_up(means: str) -> None:
    _, rows, weights, wanted = draw(6, 5, 4, 3)
    _, more_rows, more_weights, more = draw(6, 5, 2, 7, seed=1)
    parts = [of_bags(rows, weights.detach(), wanted), of_bags(more_rows, more_weights.detach(), more)]
    dense = torch.zeros(2, 6, 5, dtype=torch.float64)
    for part, into in zip(parts, dense, strict=True):
        back = reverse(part.rows)
        into[back.ids] = ops.row_gradients(part, back)
    both = join(parts)
    back = reverse(both.rows)
    torch.testing.assert_close(ops.row_gradients(both, back), dense.sum(0)[back.ids])
    torch.testing.assert_close(ops.squared_norm(both, back), dense.sum(0).square().sum())


def test_half_precision_goes_by_torch() -> None:
    table, rows, weights, _ = draw(6, 5, 4, 3)
    table.to(torch.bfloat16)
    out = table(rows, weights)
    out.sum().backward()
    expected = naive.bag(table.weight.double(), rows, weights)
    torch.testing.assert_close(out.double(), expected, rtol=0.05, atol=0.05)
    assert table.weight.grad is not None


def test_a_copy_belongs_to_no_optimizer() -> None:
    table, rows, weights, _ = draw(6, 5, 4, 3)
    table.factored = True
    table(rows, weights).sum().backward()
    assert table.weight.grad is None
    assert len(table.pending) == 1
    other = copy.deepcopy(table)
    assert not other.factored
    assert other.pending == []
    torch.testing.assert_close(other.weight, table.weight)
    with torch.no_grad():
        table(rows, weights)
    assert len(table.pending) == 1
