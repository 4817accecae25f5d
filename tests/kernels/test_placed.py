"""Sums weighted by places: torch's and compiled code against the definition, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.kernels.bag import ops as bag_ops
from mannlab.kernels.placed import naive, placed_sum


@pytest.fixture(params=["torch", "compiled"])
def how(request, monkeypatch):
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(bag_ops, "WORTH_COMPILING", 0 if request.param == "compiled" else 2**62)


def padded(sentences: list[list[int]], longest: int = 5) -> torch.Tensor:
    return torch.tensor([[*words, *[-1] * (longest - len(words))] for words in sentences])


@settings(max_examples=25, deadline=None)
@given(
    sentences=st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=6),
    width=st.integers(1, 4),
    positions=st.booleans(),
)
@pytest.mark.usefixtures("how")
def test_equals_the_definition(sentences, width, positions):
    torch.manual_seed(0)
    table = torch.randn(5, width, dtype=torch.float64, requires_grad=True)
    parts = torch.rand(width, dtype=torch.float64) if positions else None
    symbols = padded(sentences)
    found, wanted = placed_sum(table, symbols, parts), naive.placed_sum(table, symbols, parts)
    torch.testing.assert_close(found, wanted)
    grads = [torch.autograd.grad(out.sin().sum() + 0 * table.sum(), table) for out in (found, wanted)]
    torch.testing.assert_close(*grads)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_rows_and_columns(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        table = torch.randn(7, 50, requires_grad=True)
        symbols = torch.randint(0, 7, (90, 6))
        parts = torch.rand(50)
        out = placed_sum(table, symbols, parts)
        (grad,) = torch.autograd.grad(out.square().sum(), table)
        exact = table.detach().double().requires_grad_()
        wanted = naive.placed_sum(exact, symbols, parts.double())
        (wanted_grad,) = torch.autograd.grad(wanted.square().sum(), exact)
        torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("how")
def test_gradcheck():
    table = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    symbols, parts = padded([[1, 1, 2], [], [3]]), torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda table: placed_sum(table, symbols, parts), table)
