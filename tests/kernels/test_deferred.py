"""Weights whose gradient is made once for all steps: the same gradient."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from mannlab.kernels import lstm
from mannlab.kernels.deferred import Shared, stepper

F64 = torch.float64


def make() -> tuple[nn.LSTM, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.LSTM(5, 7, batch_first=True).double()
    return layer, torch.randn(3, 6, 5, dtype=F64, requires_grad=True), torch.randn(3, 6, 7, dtype=F64)


def weights(layer: nn.LSTM) -> list[torch.Tensor]:
    return [layer.weight_ih_l0, layer.bias_ih_l0, layer.weight_hh_l0, layer.bias_hh_l0]


def by_steps(layer: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    shared = Shared(*weights(layer))
    h = c = torch.zeros(3, 7, dtype=F64)
    out = []
    for t in range(x.shape[1]):
        h, c = lstm.step(x[:, t], h, c, shared)
        out.append(h)
    return torch.stack(out, 1)


def test_lstm_steps_are_the_lstm():
    layer, x, weight = make()
    wanted, _ = layer(x)
    found = by_steps(layer, x)
    torch.testing.assert_close(found, wanted)
    sources = [x, *weights(layer)]
    wanted_grads = torch.autograd.grad((wanted * weight).sum(), sources)
    found_grads = torch.autograd.grad((found * weight).sum(), sources)
    for mine, theirs in zip(found_grads, wanted_grads, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("last", [0, 3])
def test_a_loss_of_some_steps(last):
    layer, x, _ = make()
    sources = [x, *weights(layer)]
    wanted = torch.autograd.grad(layer(x)[0][:, last].square().sum(), sources)
    found = torch.autograd.grad(by_steps(layer, x)[:, last].square().sum(), sources)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_passes_that_stop_early_leave_nothing_behind():
    layer, x, weight = make()
    found = by_steps(layer, x)
    torch.autograd.grad(found.sum(), x, retain_graph=True)
    (mine,) = torch.autograd.grad((found * weight).sum(), layer.weight_ih_l0)
    (theirs,) = torch.autograd.grad((layer(x)[0] * weight).sum(), layer.weight_ih_l0)
    torch.testing.assert_close(mine, theirs)


def test_a_linear_layer_by_steps():
    torch.manual_seed(0)
    for bias in (True, False):
        layer, x = nn.Linear(4, 3, bias=bias).double(), torch.randn(2, 5, 4, dtype=F64, requires_grad=True)
        speak = stepper(layer)
        found = torch.stack([speak(x[:, t]) for t in range(5)], 1)
        torch.testing.assert_close(found, layer(x))
        sources = [x, *layer.parameters()]
        mine = torch.autograd.grad(found.square().sum(), sources)
        theirs = torch.autograd.grad(layer(x).square().sum(), sources)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other)


def changed_too_late(sources: list[torch.Tensor], run) -> None:
    """Each of ``sources``, written to before the backward pass of ``run()``, is noticed."""
    for source in sources:
        out = run()
        with torch.no_grad():
            source.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_what_a_linear_layer_was_given_stays():
    layer, x = nn.Linear(4, 3).double(), torch.randn(2, 4, dtype=F64, requires_grad=True)
    changed_too_late([layer.weight, x], lambda: stepper(layer)(x))


def test_what_an_lstm_step_was_given_stays():
    layer, x, _ = make()
    h, c = torch.randn(2, 3, 7, dtype=F64).unbind()
    x, h, c = x[:, 0].detach(), h.clone(), c.clone()
    given = [x, h, c, layer.weight_ih_l0, layer.weight_hh_l0]
    changed_too_late(given, lambda: lstm.step(x, h, c, Shared(*weights(layer)))[0])


def test_it_stands_aside_where_it_does_not_pay():
    layer = nn.Linear(4, 3)
    assert stepper(layer) is not layer
    with torch.no_grad():
        assert stepper(layer) is layer
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stepper(layer) is layer
    assert stepper(layer.requires_grad_(False)) is layer
    other = nn.Identity()
    assert stepper(other) is other


def test_frozen_biases():
    layer, x, _ = make()
    layer.bias_ih_l0.requires_grad_(False)
    by_steps(layer, x).sum().backward()
    assert layer.bias_ih_l0.grad is None
    mine = layer.weight_ih_l0.grad.clone()
    layer.zero_grad()
    layer(x)[0].sum().backward()
    torch.testing.assert_close(mine, layer.weight_ih_l0.grad)


def test_a_pass_leaves_no_cycle_behind():
    """Graphs go when they are done with, not when the garbage collector comes by."""
    layer, x, _ = make()
    gc.collect()
    gc.disable()
    try:
        alive = []
        for _ in range(3):
            shared = Shared(*weights(layer))
            alive.append(weakref.ref(shared))
            h = c = torch.zeros(3, 7, dtype=F64)
            for t in range(6):
                h, c = lstm.step(x[:, t], h, c, shared)
            h.sum().backward()
            del h, c, shared
        assert [each() for each in alive] == [None] * 3
    finally:
        gc.enable()
