"""How evenly values are used."""

from __future__ import annotations

import math

import pytest
import torch

from mannlab.memory.usage import Usage, statistics


def test_counting_begun_in_inference_mode_goes_on_outside() -> None:
    usage = Usage(3)
    with torch.inference_mode():
        usage.add(torch.tensor([0]), torch.tensor([1.0]))
    with torch.no_grad():
        usage.add(torch.tensor([2]), torch.tensor([0.5]))
    found = usage.take()
    assert found is not None
    assert found.tolist() == [[1, 0, 1], [1, 0, 0.5]]


def test_even_use() -> None:
    found = statistics(torch.full((100,), 3.0), torch.full((100,), 0.5))
    assert found["used_percent"] == 100
    assert found["dead_slots"] == 0
    assert found["kl_nats"] == pytest.approx(0, abs=1e-9)
    assert found["gini"] == pytest.approx(0, abs=1e-9)
    assert [found[f"slots_holding_{share}_percent"] for share in (50, 90, 99)] == [50, 90, 99]


def test_one_value_has_it_all() -> None:
    reads = torch.zeros(100)
    reads[7] = 5
    found = statistics(reads, reads)
    assert found["used_percent"] == 1
    assert found["dead_slots"] == 99
    assert found["kl_nats"] == pytest.approx(math.log(100))
    assert found["gini"] == pytest.approx(0.99)
    assert found["slots_holding_99_percent"] == 1


def test_nothing_read_is_no_error() -> None:
    found = statistics(torch.zeros(4), torch.zeros(4))
    assert found == {"used_percent": 0, "dead_slots": 4, "kl_reads_nats": 0, "kl_nats": 0}


def test_a_rank_without_counts_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    met = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda found: met.append(found) or found.add_(2))
    found = Usage(3).take()
    assert met
    assert found is not None
    assert found.tolist() == [[2, 2, 2], [2, 2, 2]]
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda found: found)
    assert Usage(3).take() is None


def test_counts() -> None:
    usage = Usage(4)
    assert usage.take() is None
    usage.add(torch.tensor([[0, 2], [2, 2]]), torch.tensor([[0.5, 0.25], [-0.25, 1.0]]))
    usage.add(torch.tensor([3]), torch.tensor([1.0]))
    found = usage.take()
    assert found is not None
    assert found.tolist() == [[1, 0, 3, 1], [0.5, 0, 1.5, 1]]
    assert usage.take() is None
