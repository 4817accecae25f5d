"""Search among n^2 keys: the same as comparing with all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.kernels.bag import ops
from mannlab.kernels.product_key import naive, search
from mannlab.kernels.product_key.search import select


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 6),
    heads=st.integers(1, 3),
    shared=st.booleans(),
    size=st.integers(1, 70),
    half=st.integers(1, 5),
    count=st.integers(1, 70),
    compiled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_exact(
    steps: int, heads: int, shared: bool, size: int, half: int, count: int, compiled: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    count = min(count, size)
    queries = torch.randn(steps, heads, 2, half, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(2, 1 if shared else heads, size, half, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(steps, heads, count, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "WORTH_COMPILING", 0 if compiled else 2**60)
        found = search(queries, keys, count)
        got = torch.autograd.grad((found.scores * slopes).sum(), [queries, keys])
    rows, scores = naive.search(queries, keys, count)
    wanted = torch.autograd.grad((scores * slopes).sum(), [queries, keys])
    torch.testing.assert_close(found.scores, scores)
    assert torch.equal(found.rows, rows)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("least", [0, 2**60])
def test_ties_give_distinct_pairs(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "WORTH_COMPILING", least)
    first = torch.zeros(3, 40)
    scores, i, j = select(first, first, 7)
    assert (scores == 0).all()
    for row in i * 40 + j:
        assert len(set(row.tolist())) == 7


def test_what_is_not_a_number_stays_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "WORTH_COMPILING", 0)
    bad = torch.full((2, 40), torch.nan)
    for first in (bad, torch.randn(2, 40)):
        _, i, j = select(first, bad, 5)
        assert ((i >= 0) & (i < 40) & (j >= 0) & (j < 40)).all()


def test_half_precision_does_not_change_what_is_found() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(5, 2, 2, 8), torch.randn(2, 2, 30, 8)
    plain = search(queries, keys, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = search(queries, keys, 4)
    assert torch.equal(inside.rows, plain.rows)
    assert torch.equal(inside.scores, plain.scores)
