"""Schedules of our own."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mannlab.errors import ConfigError
from mannlab.training.schedules import WarmupCosine


def adam(rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_it_is_one_cycle() -> None:
    ours, theirs = adam(), adam()
    one = OneCycleLR(theirs, max_lr=0.1, total_steps=2000, pct_start=0.05, cycle_momentum=False)
    expected = torch.tensor(rates(theirs, one, 2000))
    found = torch.tensor(rates(ours, WarmupCosine(ours, 2000), 2000))
    # Theirs is at the top a step earlier.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 21])
def test_runs_of_any_length_have_it_and_may_go_past_its_end(steps: int) -> None:
    optimizer = adam()
    found = rates(optimizer, WarmupCosine(optimizer, steps), steps + 3)
    assert all(0 <= rate <= 0.1 for rate in found)
    assert max(found[:steps]) > 0
    assert found[steps:] == [0.0] * 3


@pytest.mark.parametrize("share", [{"warmup": 1.0}, {"warmup": -0.1}, {"start_factor": 1.5}])
def test_shares_out_of_bounds_are_named(share: dict[str, float]) -> None:
    (key,) = share
    with pytest.raises(ConfigError, match=rf"scheduler\.{key}"):
        WarmupCosine(adam(), 10, **share)
