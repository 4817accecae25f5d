"""Adam on the rows that were read."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from mannlab.kernels.bag import RowAdam, RowTable, naive, ops

LR, BETAS, EPS = 0.05, (0.8, 0.9), 1e-8


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ops, "WORTH_COMPILING", 0 if request.param == "compiled" else 2**60)
    monkeypatch.setattr(ops, "LEAST_SHARE", 1)
    return str(request.param)


def make(size: int = 6, width: int = 3) -> tuple[RowTable, RowAdam]:
    torch.manual_seed(0)
    table = RowTable(size, width).double()
    return table, RowAdam([table], lr=LR, betas=BETAS, eps=EPS)


def learn(table: RowTable, rows: list[list[int]], seed: int) -> Tensor:
    """A backward pass; returns the dense gradient."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.tensor(rows)
    weights = torch.randn(which.shape, dtype=torch.float64, generator=generator).requires_grad_()
    wanted = torch.randn(len(rows), table.weight.shape[1], dtype=torch.float64, generator=generator)
    (table(which, weights) * wanted).sum().backward()
    values = table.weight.detach().clone().requires_grad_()
    (naive.bag(values, which, weights.detach()) * wanted).sum().backward()
    assert values.grad is not None
    return values.grad


def test_where_every_row_is_read_it_is_adam() -> None:
    table, optimizer = make()
    values = table.weight.detach().clone()
    moments = (torch.zeros_like(values), torch.zeros_like(values))
    reference = torch.nn.Parameter(values.clone())
    torchs = torch.optim.Adam([reference], lr=LR, betas=BETAS, eps=EPS)
    for step in range(1, 6):
        grad = learn(table, [[0, 1, 2, 3, 4, 5], [5, 5, 1, 0, 0, 2]], step)
        optimizer.step()
        naive.adam(values, moments, grad, step, LR, BETAS, EPS)
        reference.grad = grad
        torchs.step()
    torch.testing.assert_close(values, reference.detach())
    torch.testing.assert_close(table.weight.detach(), values)


def test_moments_of_a_row_that_is_read_are_those_of_adam_and_others_rest() -> None:
    table, optimizer = make()
    values = table.weight.detach().clone()
    moments = (torch.zeros_like(values), torch.zeros_like(values))
    for step, rows in enumerate([[[0, 1]], [[2, 2]], [[1, 3]], [[0, 3]], [[0, 0]]], start=1):
        before = table.weight.detach().clone()
        grad = learn(table, rows, step)
        optimizer.step()
        naive.adam(values, moments, grad, step, LR, BETAS, EPS)
        state, read = optimizer.state[table.weight], sorted(set(rows[0]))
        torch.testing.assert_close(state["first"][read], moments[0][read])
        torch.testing.assert_close(state["second"][read], moments[1][read])
        others = [row for row in range(6) if row not in read]
        assert torch.equal(table.weight.detach()[others], before[others])
        assert not torch.equal(table.weight.detach()[read], before[read])


def test_steps_of_several_passes_scaled_and_bounded() -> None:
    table, optimizer = make()
    values = table.weight.detach().clone()
    grad = learn(table, [[0, 1]], 1) + learn(table, [[1, 2], [2, 5]], 2)
    torch.testing.assert_close(optimizer.squared_norm(), grad.square().sum())
    optimizer.scale, optimizer.clip = 0.5, 0.3
    optimizer.step()
    moments = (torch.zeros_like(values), torch.zeros_like(values))
    naive.adam(values, moments, (grad * 0.5).clamp(-0.3, 0.3), 1, LR, BETAS, EPS)
    torch.testing.assert_close(optimizer.state[table.weight]["first"], moments[0])
    torch.testing.assert_close(optimizer.state[table.weight]["second"], moments[1])
    assert optimizer.scale == 1
    assert optimizer.clip == math.inf


def test_zero_grad_and_steps_without_reads() -> None:
    table, optimizer = make()
    before = table.weight.detach().clone()
    learn(table, [[0, 1]], 1)
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(table.weight.detach(), before)
    assert float(optimizer.squared_norm()) == 0


def test_its_state_can_be_saved_and_loaded() -> None:
    table, optimizer = make()
    learn(table, [[0, 1]], 1)
    optimizer.step()
    other, second = make()
    other.load_state_dict(table.state_dict())
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert second.state[other.weight]["last"].dtype == torch.int64
    for step in (2, 3):
        learn(table, [[0, 4]], step)
        learn(other, [[0, 4]], step)
        optimizer.step()
        second.step()
    assert torch.equal(other.weight, table.weight)


def test_tables_may_have_a_rate_of_their_own() -> None:
    tables = [RowTable(4, 2, lr=0.5), RowTable(4, 2)]
    optimizer = RowAdam(tables, lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert all(table.factored for table in tables)
