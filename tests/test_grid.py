"""The contract of the house: every controller drives every memory on every task."""

from __future__ import annotations

import math

import pytest
import torch

from mannlab import registry
from mannlab.contracts import Split
from mannlab.draws import Draws
from mannlab.model import assemble

SMALL = {
    "lstm": {"hidden": 24},
    "gru": {"hidden": 24},
    "feedforward": {"hidden": 24},
    "transformer": {"width": 24, "layers": 1, "heads": 2, "feedforward": 48},
    "dense": {"slots": 12, "width": 8},
    "lrua": {"slots": 12, "width": 8, "read_heads": 2},
    "dnc": {"slots": 12, "width": 8, "read_heads": 2},
    "sparse": {"slots": 12, "width": 8, "heads": 2},
    "sparse_dnc": {"slots": 12, "width": 8, "heads": 1},
    "product_key": {"slots": 36, "width": 8, "heads": 2, "knn": 3, "key_width": 8},
    "memory_network": {"slots": 6, "width": 8, "hops": 2},
    "none": {},
    "copy": {"bits": 4, "max_length": 4},
    "associative_recall": {"bits": 3, "item_length": 2, "max_items": 3},
    "repeat_copy": {"bits": 3, "max_length": 3, "max_repeats": 3},
    "dynamic_ngrams": {"order": 3, "min_length": 10, "max_length": 12, "lengths": [14]},
    "priority_sort": {"bits": 3, "min_items": 4, "max_items": 5, "answers": 4, "items": [6]},
    "addition": {"base": 4, "max_digits": 3},
    "omniglot": {"source": "glyphs", "classes": 3, "episode_length": 9},
    "babi": {"source": "generated", "families": ["single_fact", "yes_no"], "size": "1k"},
    "language_modelling": {"source": "pydoc", "level": "byte", "length": 6},
    "translation": {"source": "numbers", "pairs": 200, "largest": 999, "vocabulary": 300, "bucket": 8},
}
STEPS = 2
ENOUGH = 20


def every(kind: str) -> list[str]:
    registry.load_builtins()
    return registry.names(kind)


def train(steps: int, **names: str) -> list[float]:
    """The loss on one batch, before each of some optimizer steps."""
    torch.manual_seed(0)
    model, task = assemble({kind: {"name": name, **SMALL[name]} for kind, name in names.items()})
    task.prepare()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batch = task.batch(Split("train"), Draws(0, "train"), 0, 8)
    losses = []
    for _ in range(steps):
        loss = task.score(model(batch.inputs, batch.valid), batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    return losses


@pytest.mark.parametrize("task", every("task"))
@pytest.mark.parametrize("memory", every("memory"))
@pytest.mark.parametrize("controller", every("controller"))
def test_it_runs(controller: str, memory: str, task: str):
    first, second = train(STEPS, controller=controller, memory=memory, task=task)
    assert first != second


@pytest.mark.parametrize("task", every("task"))
@pytest.mark.parametrize("memory", every("memory"))
def test_it_learns(memory: str, task: str):
    losses = train(ENOUGH, controller="lstm", memory=memory, task=task)
    assert max(losses[-3:]) < losses[0]


@pytest.mark.parametrize("controller", every("controller"))
def test_every_controller_learns(controller: str):
    losses = train(ENOUGH, controller=controller, memory="dense", task="copy")
    assert max(losses[-3:]) < losses[0]
