"""Lengths of gradients and speeds are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mannlab.contracts import Bits, StreamSpec, Token
from mannlab.kernels.bag import RowAdam
from mannlab.model import MANN
from mannlab.training import instruments
from mannlab.training.instruments import Instruments, Meter, gradient_norms
from mannlab.training.tables import WithTables, tables_of

SPEC = StreamSpec({"x": Token(5)}, Bits(2))


def untrained(memory: dict[str, Any]) -> MANN:
    torch.manual_seed(0)
    return MANN({"name": "lstm", "hidden": 6}, memory, SPEC)


def backward(model: MANN) -> MANN:
    torch.manual_seed(1)
    model({"x": torch.randint(5, (3, 4))}).square().sum().backward()
    return model


def trained(memory: dict[str, Any]) -> MANN:
    return backward(untrained(memory))


def test_parts_add_up_to_the_whole() -> None:
    model = trained({"name": "dense", "slots": 8, "width": 4})
    norms = gradient_norms(model, torch.optim.SGD(model.parameters(), lr=1))
    assert set(norms) == {"global", "encoder", "controller", "memory", "interface", "head"}
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(norms["global"], whole)
    parts = torch.stack([norm for part, norm in norms.items() if part != "global"])
    torch.testing.assert_close(parts.norm(), whole)
    head = torch.cat([p.grad.flatten() for p in model.head.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(norms["head"], head)


@pytest.mark.parametrize("gradient", ["auto", "sparse", "dense"])
def test_gradients_of_tables_belong_to_the_memory(gradient: str) -> None:
    options = {"slots": 16, "width": 4, "knn": 2, "key_width": 4, "heads": 1, "gradient": gradient}
    model = untrained({"name": "product_key", **options})
    tables = tables_of(model)
    apart = {id(table.weight) for table in tables}
    rest = torch.optim.SGD([p for p in model.parameters() if id(p) not in apart], lr=1)
    optimizer = WithTables(rest, RowAdam(tables, lr=1)) if tables else rest
    # What belongs to an optimizer of its own has its gradient in factors from then on.
    found = gradient_norms(backward(model), optimizer)["memory"]
    reference = trained({"name": "product_key", **options, "gradient": "dense"})
    grads = [p.grad.flatten() for p in reference.memory.parameters() if p.grad is not None]
    torch.testing.assert_close(found, torch.cat(grads).norm())


def test_speed_leaves_out_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(instruments.time, "monotonic", lambda: now[0])
    meter = Meter()
    assert meter.rates(5, 5) is None
    meter.start(100, 10)
    assert meter.rates(100, 10) is None
    now[0] = 2.0
    meter.pause()
    meter.pause()
    now[0] = 50.0
    meter.go_on()
    now[0] = 54.0
    assert meter.rates(160, 13) == pytest.approx((10.0, 0.5))


def test_nothing_is_measured_unless_something_is_logged() -> None:
    model = trained({"name": "none"})
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    kept = Instruments(model)
    kept.look(optimizer)
    assert kept.take(8, 1) == {}
    kept.note({"train/loss_nats": 1.0})
    kept.look(optimizer)
    values = kept.take(16, 2)
    assert values["train/loss_nats"] == 1.0
    assert values["train_gradients/global_norm"] > 0
    assert values["train_speed/steps_per_second"] > 0
    assert not kept.waiting
