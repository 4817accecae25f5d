"""Runs with a memory whose values have an optimizer of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab.errors import ConfigError
from mannlab.kernels.bag import RowAdam, RowTable
from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.run import train
from mannlab.training.tables import WithTables, clip_norm, clip_value

MEMORY = {"name": "product_key", "slots": 25, "width": 4, "heads": 2, "knn": 3, "key_width": 4}
VALUES = "model.memory.values.weight"

pytestmark = pytest.mark.usefixtures("silent")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"])


def pair() -> tuple[torch.nn.Linear, RowTable, WithTables]:
    torch.manual_seed(0)
    layer, table = torch.nn.Linear(3, 3), RowTable(5, 3)
    return layer, table, WithTables(torch.optim.Adam(layer.parameters(), lr=0.1), RowAdam([table], lr=0.1))


def backward(layer: torch.nn.Linear, table: RowTable) -> None:
    torch.manual_seed(1)
    (layer(table(torch.tensor([[0, 1], [1, 3]]), torch.rand(2, 2))) * torch.randn(2, 3)).sum().backward()


def dense_gradients() -> list[torch.Tensor]:
    torch.manual_seed(0)
    layer, table = torch.nn.Linear(3, 3), RowTable(5, 3)
    backward(layer, table)
    return [p.grad for p in [*layer.parameters(), table.weight] if p.grad is not None]


def test_clipping_by_norm_counts_the_values() -> None:
    layer, table, both = pair()
    backward(layer, table)
    norm = torch.stack([grad.square().sum() for grad in dense_gradients()]).sum().sqrt()
    clip_norm(both, float(norm) / 2)
    assert both.rows.scale == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(layer.weight.grad, dense_gradients()[0] / 2, rtol=1e-4, atol=1e-6)
    both.zero_grad()
    backward(layer, table)
    clip_norm(both, float(norm) * 2)
    assert both.rows.scale == 1


def test_clipping_by_value_reaches_the_values() -> None:
    layer, table, both = pair()
    backward(layer, table)
    clip_value(both, 0.01)
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() <= 0.01
    assert both.rows.clip == 0.01


def test_it_learns_and_resumes_exactly(tmp_path: Path, settings: Any) -> None:
    changes = {"memory": MEMORY, "trainer.max_steps": 6}
    whole = train(settings(changes), tmp_path / "whole")
    train(settings({**changes, "trainer.max_steps": 3}), tmp_path / "half")
    train(settings({**changes, "ckpt_path": str(tmp_path / "half")}), tmp_path / "rest")
    ones, others = weights(tmp_path / "whole"), weights(tmp_path / "rest")
    assert all(torch.equal(ones[name], others[name]) for name in ones)
    assert not torch.equal(ones[VALUES], weights(tmp_path / "half")[VALUES])
    assert 0 < whole["metrics"]["val_memory/used_percent"] <= 100


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path, settings: Any) -> None:
    changes = {"memory": {**MEMORY, "query_norm": "layer"}, "task.bucket": 16, "trainer.max_steps": 4}
    changes["trainer.precision"] = "64-true"  # Adam makes much of the rounding of a gradient near zero
    train(settings({**changes, "batch_size": 8}), tmp_path / "one")
    parts = {"batch_size": 4, "trainer.accumulate_grad_batches": 2}
    train(settings({**changes, **parts}), tmp_path / "two")
    ones, twos = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in ones.items():
        torch.testing.assert_close(twos[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
def test_precisions(tmp_path: Path, settings: Any, precision: str) -> None:
    summary = train(settings({"memory": MEMORY, "trainer.precision": precision}), tmp_path / "run")
    assert summary["status"] == "completed"
    values = weights(tmp_path / "run")[VALUES]
    assert values.isfinite().all()


@pytest.mark.parametrize("changes", [{"shared_values": True}, {}, {"gate": True, "width": 3}])
def test_memory_in_the_blocks_of_a_transformer(
    tmp_path: Path, settings: Any, changes: dict[str, Any]
) -> None:
    controller = {"name": "transformer", "width": 8, "layers": 3, "heads": 2, "feedforward": 8}
    controller["memory_blocks"] = [0, 2]
    run = {"memory": {**MEMORY, "width": 8, **changes}, "controller": controller, "test": True}
    summary = train(settings(run), tmp_path / "run")
    assert 0 < summary["metrics"]["test_memory/used_percent_block_2"] <= 100
    tables = {name for name in weights(tmp_path / "run") if name.endswith("values.weight")}
    first, last = (weights(tmp_path / "run")[name] for name in sorted(tables))
    assert torch.equal(first, last) == ("shared_values" in changes)


@pytest.mark.parametrize("gradient", ["sparse", "dense"])
def test_ordinary_gradients_for_any_optimizer(tmp_path: Path, settings: Any, gradient: str) -> None:
    found = []
    for kind in (gradient, "dense"):
        changes = {"memory": {**MEMORY, "gradient": kind}}
        changes["optimizer"] = {"_target_": "torch.optim.SGD", "lr": 0.1}
        train(settings(changes), tmp_path / f"{kind}{len(found)}")
        found.append(weights(tmp_path / f"{kind}{len(found)}"))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])


def test_values_keep_their_rate_under_a_schedule_or_follow_it(tmp_path: Path, settings: Any) -> None:
    scheduler = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": 0.5}
    for lr, wanted in ((1e-3, 1e-3), (None, pytest.approx(3e-3 * 0.5**2))):
        config = {"memory": {**MEMORY, "value_lr": lr}, "scheduler": scheduler, "trainer.max_steps": 3}
        config["optimizer"] = {"_target_": "torch.optim.Adam", "lr": 3e-3}
        train(settings(config), tmp_path / str(lr))
        saved = read_checkpoint(tmp_path / str(lr) / "checkpoints" / "last.ckpt")["optimizer_states"][0]
        assert saved["rows"]["param_groups"][0]["lr"] == wanted
        assert saved["main"]["param_groups"][0]["lr"] == pytest.approx(3e-3 * 0.5**3)


def test_an_optimizer_that_takes_no_sparse_gradients_is_named(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(ConfigError, match=r"memory\.gradient: sparse is not allowed with Adam"):
        train(settings({"memory": {**MEMORY, "gradient": "sparse"}}), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
