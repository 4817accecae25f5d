from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from mannlab.errors import ConfigError
from mannlab.training.optimizers import GravesRMSprop


def test_follows_the_formula_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [
        torch.randn(3, 2, generator=generator, dtype=torch.float64),
        torch.randn(4, generator=generator).double(),
    ]
    params = [nn.Parameter(tensor.clone()) for tensor in start]
    optimizer = GravesRMSprop(params, lr=0.03, decay=0.9, momentum=0.8, eps=1e-3)
    values = [tensor.flatten().tolist() for tensor in start]
    n, m, d = ([[0.0] * len(v) for v in values] for _ in range(3))
    for _ in range(5):
        for index, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=generator).double()
            for i, g in enumerate(p.grad.flatten().tolist()):
                n[index][i] = 0.9 * n[index][i] + 0.1 * g * g
                m[index][i] = 0.9 * m[index][i] + 0.1 * g
                root = math.sqrt(n[index][i] - m[index][i] ** 2 + 1e-3)
                d[index][i] = 0.8 * d[index][i] - 0.03 * g / root
                values[index][i] += d[index][i]
        optimizer.step()
    for p, value in zip(params, values, strict=True):
        torch.testing.assert_close(
            p.detach().flatten(), torch.tensor(value, dtype=torch.float64), rtol=1e-12, atol=0
        )


def test_a_constant_large_gradient_stays_finite() -> None:
    p = nn.Parameter(torch.zeros(8))
    optimizer = GravesRMSprop([p])
    for _ in range(400):
        p.grad = torch.full((8,), 12345.678)
        optimizer.step()
    assert torch.isfinite(p).all()


def test_leaves_parameters_without_gradient_and_calls_the_closure() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = GravesRMSprop([used, unused])

    def closure() -> torch.Tensor:
        loss = (used**2).sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 2.0
    assert (used < 1).all()
    assert torch.equal(unused, torch.ones(2))


def test_state_survives_a_checkpoint() -> None:
    def run(p: nn.Parameter, optimizer: GravesRMSprop, steps: int) -> None:
        for _ in range(steps):
            p.grad = p.detach() * 2 + 1
            optimizer.step()

    p = nn.Parameter(torch.ones(3))
    first = GravesRMSprop([p])
    run(p, first, 3)
    q = nn.Parameter(p.detach().clone())
    second = GravesRMSprop([q])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(p, first, 3)
    run(q, second, 3)
    assert torch.equal(p, q)


@pytest.mark.parametrize(("key", "value"), [("lr", 0.0), ("eps", -1.0), ("decay", 1.0), ("momentum", -0.1)])
def test_refuses_impossible_values(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"optimizer\.{key}"):
        GravesRMSprop([nn.Parameter(torch.ones(1))], **{key: value})
