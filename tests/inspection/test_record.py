"""What is kept of a sample: of every memory, of every kind of stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mannlab.datasets.characters import Source
from mannlab.datasets.drawings import DRAWINGS, Drawings
from mannlab.draws import Draws
from mannlab.errors import ConfigError
from mannlab.inspection.record import choose, find_split, record
from mannlab.inspection.sample import Sample, window
from mannlab.model import assemble
from tests.inspection.conftest import COPY, DENSE, LSTM

MEMORIES: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "lrua": {"name": "lrua", "slots": 8, "width": 4, "read_heads": 2},
    "dnc": {"name": "dnc", "slots": 8, "width": 4, "read_heads": 2},
    "sparse": {"name": "sparse", "slots": 16, "width": 4, "heads": 2, "sparsity": 2},
    "sparse_dnc": {
        "name": "sparse_dnc",
        "slots": 16,
        "width": 4,
        "heads": 2,
        "sparsity": 2,
    },
    "memory_network": {"name": "memory_network", "slots": 8, "width": 4, "hops": 2},
    "product_key": {"name": "product_key", "slots": 64, "width": 4, "heads": 2, "knn": 3, "key_width": 4},
}
STEPS = 9


@pytest.mark.parametrize("name", MEMORIES)
def test_every_memory_shows_where_it_looks_and_what_it_holds(
    name: str, looked: Callable[..., Sample]
) -> None:
    found = looked(MEMORIES[name])
    (memory,) = found.memories
    kinds = {head.writes for head in memory.heads}
    assert kinds == ({False} if name == "product_key" else {False, True})
    for head in memory.heads:
        assert head.weights.shape == (STEPS, len(memory.shown))
        assert head.top_slots.shape == head.top_weights.shape
        np.testing.assert_allclose(
            head.top_weights[:, 0], head.weights.max(1), atol=1e-6, err_msg="few slots are all shown"
        )
        assert (np.diff(head.top_weights, axis=1) <= 1e-6).all()
    assert memory.rows is not None, memory.note
    assert memory.rows.shape[:2] == (STEPS, len(memory.shown))
    changes = np.abs(np.diff(memory.rows, axis=0)).max()
    assert changes == 0 if name == "product_key" else changes > 0


def test_what_is_held_is_what_the_steps_left() -> None:
    torch.manual_seed(0)
    model, task = assemble({"controller": LSTM, "memory": DENSE, "task": COPY})
    split = find_split(task, "test_length_4")
    draws = Draws(7, split.stream)
    found = record(model.eval(), task, split, draws, 2)
    with torch.no_grad():
        batch = task.batch(split, draws, 2, 1)
        logits, state = model.run(batch.inputs)
    assert found.memories[0].rows is not None
    torch.testing.assert_close(torch.from_numpy(found.memories[0].rows[-1]), state.memory.memory[0])
    assert found.output.cells is not None
    said = torch.sigmoid(logits[0])[batch.scored[0].bool()]
    torch.testing.assert_close(torch.from_numpy(found.output.cells[found.scored]), said)
    assert np.isnan(found.output.cells[~found.scored]).all()
    right = ((said > 0.5) == (batch.targets[0][batch.scored[0].bool()] > 0.5)).all(1)
    assert found.right[found.scored].tolist() == right.tolist()


def test_rows_of_a_sparse_memory_are_kept_as_they_were(looked: Callable[..., Sample]) -> None:
    rows = looked(MEMORIES["sparse"]).memories[0].rows
    assert rows is not None
    assert len({rows[step].tobytes() for step in range(STEPS)}) == STEPS


def test_steps_in_parallel(looked: Callable[..., Sample]) -> None:
    (memory,) = looked(feedback=False).memories
    assert [head.title for head in memory.heads] == ["read", "write"]
    assert memory.rows is not None
    assert memory.rows.shape == (STEPS, 8, 4)


def test_no_memory_says_so(looked: Callable[..., Sample]) -> None:
    found = looked({"name": "none"})
    assert found.memories == []
    assert "no memory" in found.note
    assert found.steps == STEPS


def test_memories_inside_a_transformer(looked: Callable[..., Sample]) -> None:
    controller = {"name": "transformer", "width": 8, "heads": 2, "layers": 2, "memory_blocks": [1]}
    found = looked(MEMORIES["product_key"], controller=controller)
    (memory,) = found.memories
    assert memory.title == "block 1"
    assert len(memory.heads) == 2


def test_segments_hold_their_step_of_the_memory(looked: Callable[..., Sample]) -> None:
    controller = {"name": "transformer", "width": 8, "heads": 2, "layers": 1, "segment": 3}
    found = looked(controller=controller)
    assert found.segment == 3
    assert found.memories[0].rows is not None
    assert len(found.memories[0].rows) == STEPS


def test_slots_that_are_steps_are_called_by_what_came_in(looked: Callable[..., Sample]) -> None:
    task = {"name": "babi", "source": "generated", "size": "1k", "families": ["single_fact"]}
    found = looked(MEMORIES["memory_network"], task, split="test")
    (memory,) = found.memories
    assert memory.names == list(found.inputs[0].texts)
    assert any(word.endswith("?") for word in memory.names)
    assert [bool(text) for text in found.output.texts] == found.scored.tolist()


def test_pictures_and_symbols(looked: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing real ones takes a minute.
    ink = np.random.default_rng(0).integers(0, 256, (30, DRAWINGS, 40, 40), np.uint8)
    names = [f"Alphabet{k // 10}/character{k % 10:02}" for k in range(30)]
    blobs = Drawings(ink, names, np.arange(30) >= 20)
    monkeypatch.setattr(Source, "load", lambda self, side: blobs)
    task = {"name": "omniglot", "source": "glyphs", "classes": 3, "episode_length": 6, "val_characters": 5}
    found = looked(DENSE, task | {"labels": "five_letters", "test_classes": []}, split="test")
    image, label = found.inputs
    assert image.images is not None
    assert image.images.shape[0] == found.steps
    assert image.images.max() > 128
    assert label.cells is not None
    assert all(len(text) == 5 and set(text) <= set("abcde") for text in found.target.texts)


def test_a_running_text_goes_on_where_the_sample_before_ended(looked: Callable[..., Sample]) -> None:
    task = {"name": "language_modelling", "source": "pydoc", "level": "byte", "length": 6, "eval_lanes": 2}
    first, later = (looked(DENSE, task, split="test", index=index) for index in (0, 2))
    assert first.steps == later.steps == 6
    assert first.inputs[0].texts[1:] == first.target.texts[:-1]
    assert later.memories[0].rows is not None
    assert first.memories[0].rows is not None
    # Six steps more of writing lie between the two.
    assert not np.allclose(first.memories[0].rows[0], later.memories[0].rows[0])


def test_slots_of_earlier_parts_of_a_text_have_numbers(looked: Callable[..., Sample]) -> None:
    task = {"name": "language_modelling", "source": "pydoc", "level": "byte", "length": 6, "eval_lanes": 2}
    found = looked({"name": "memory_network", "slots": 9, "width": 4, "hops": 1}, task, split="test", index=2)
    (memory,) = found.memories
    (writing,) = (head.weights for head in memory.heads if head.writes)
    assert memory.names == [str(number) for number in range(6)] + list(found.inputs[0].texts)
    assert [memory.names[int(step.argmax())] for step in writing] == list(found.inputs[0].texts)


def test_of_many_slots_those_that_heads_looked_at_are_shown() -> None:
    look = (torch.tensor([[900, 3, 5]]), torch.tensor([[0.9, 0.5, 0.001]]))
    shown = choose({"read weights": [look]}, 1000).tolist()
    assert {3, 900} <= set(shown)
    assert shown == sorted(shown)
    assert len(shown) == 8
    assert choose({}, 10).tolist() == list(range(10))


def test_a_window_keeps_everything_in_step(looked: Callable[..., Sample]) -> None:
    whole = looked()
    part = window(whole, 2, 6)
    assert (part.first, part.steps) == (2, 4)
    assert part.target.texts == whole.target.texts[2:6]
    assert part.memories[0].rows is not None
    assert len(part.memories[0].rows) == len(part.memories[0].heads[0].top_slots) == 4


def test_splits_by_name() -> None:
    _, task = assemble({"controller": LSTM, "memory": DENSE, "task": COPY})
    assert find_split(task, None).stream == "test"
    assert find_split(task, "length_4").stream == "test_length_4"
    assert find_split(task, "train").samples is None
    with pytest.raises(ConfigError, match="split: there is no 'lenght_4'") as error:
        find_split(task, "lenght_4")
    assert "test_length_4" in str(error.value)
