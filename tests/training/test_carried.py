"""A continuous task: the model's state goes on from batch to batch, through a resume as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab.contracts import Batch
from mannlab.model import assemble
from mannlab.training.carried import Carried
from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.run import train

TASK = {"name": "language_modelling", "source": "pydoc", "level": "byte", "length": 6, "eval_lanes": 4}
MEMORIES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "dense": {"name": "dense", "slots": 6, "width": 3},
    "sparse": {"name": "sparse", "slots": 32, "width": 3, "heads": 1},
    "memory_network": {"name": "memory_network", "slots": 4, "width": 3, "hops": 2},
    "product_key": {"name": "product_key", "slots": 25, "width": 4, "heads": 1, "knn": 2, "key_width": 4},
}
CONTROLLERS: dict[str, dict[str, Any]] = {
    "lstm": {"name": "lstm", "hidden": 8},
    "transformer": {"name": "transformer", "width": 8, "layers": 1, "heads": 1, "feedforward": 8},
}


def model_for(controller: str, memory: str) -> Any:
    torch.manual_seed(0)
    parts = {"controller": CONTROLLERS[controller], "memory": MEMORIES[memory], "task": TASK}
    return assemble(parts)[0].eval()


def cut(tokens: torch.Tensor, first: int, last: int, continues: bool) -> Batch:
    part = tokens[:, first:last]
    return Batch({"token": part}, part.unsqueeze(-1), torch.ones(part.shape), continues=continues)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_parts_are_the_whole(controller: str, memory: str) -> None:
    model = model_for(controller, memory)
    tokens = torch.randint(256, (2, 12))
    carried = Carried()
    with torch.no_grad():
        whole = model({"token": tokens})
        first = carried.run(model, cut(tokens, 0, 5, continues=False))
        second = carried.run(model, cut(tokens, 5, 12, continues=True))
        again = carried.run(model, cut(tokens, 0, 5, continues=False))
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again, first)


@pytest.mark.parametrize("memory", MEMORIES)
def test_gradients_end_at_the_batch(memory: str) -> None:
    model = model_for("lstm", memory).train()
    tokens = torch.randint(256, (2, 12))
    carried = Carried()
    for first in (0, 6):
        carried.run(model, cut(tokens, first, first + 6, continues=first > 0)).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("memory", ["none", "dense", "product_key"])
def test_a_resumed_run_goes_on_with_the_state(tmp_path: Path, settings: Any, memory: str) -> None:
    base = {"task": TASK, "memory": MEMORIES[memory], "trainer.limit_val_batches": 2}
    train(settings({**base, "trainer.max_steps": 9}), tmp_path / "whole")
    train(settings({**base, "trainer.max_steps": 5}), tmp_path / "first")
    train(
        settings({**base, "trainer.max_steps": 9, "ckpt_path": str(tmp_path / "first")}), tmp_path / "second"
    )
    whole, second = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "second")
    )
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name


@pytest.mark.usefixtures("silent")
def test_a_memory_of_another_size_begins_anew(tmp_path: Path, settings: Any) -> None:
    base = {"task": TASK, "memory": {"name": "lrua", "slots": 6}, "trainer.limit_val_batches": 2}
    train(settings({**base, "trainer.max_steps": 2}), tmp_path / "first")
    more = {**base, "memory.slots": 9, "trainer.max_steps": 4, "ckpt_path": str(tmp_path / "first")}
    train(settings(more), tmp_path / "second")
    saved = read_checkpoint(tmp_path / "second" / "checkpoints" / "last.ckpt")["carried"][0]
    assert (9, 40) in {tuple(leaf.shape[1:]) for leaf in saved}


def test_what_does_not_fit_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    model = model_for("lstm", "dense")
    carried, other = Carried(), Carried()
    with torch.no_grad():
        carried.run(model, cut(torch.randint(256, (2, 4)), 0, 4, continues=False))

    class OneRank:
        world_size = 1

    saved = carried.save(carried.held(model), OneRank())
    assert saved is not None
    other.load(saved, model, 3, 0)
    assert other._state is None
    assert "not of 3" in caplog.text
    other.load(saved, model, 2, 0)
    tokens = torch.randint(256, (2, 4))
    with torch.no_grad():
        expected = carried.run(model, cut(tokens, 0, 4, continues=True))
        torch.testing.assert_close(other.run(model, cut(tokens, 0, 4, continues=True)), expected)
