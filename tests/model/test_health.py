"""What is said of a memory's health is what its weights and gates are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mannlab.contracts import Bits, Heads, Memory, StreamSpec, Vector, Vitals
from mannlab.model import MANN
from mannlab.model.health import Health, merged
from mannlab.model.hosted import watched

SPEC = StreamSpec({"x": Vector(3)}, Bits(2))
LSTM = {"name": "lstm", "hidden": 5}
MEMORIES: list[dict[str, Any]] = [
    {"name": "dense", "slots": 8, "width": 4},
    {"name": "dnc", "slots": 8, "width": 4},
    {"name": "lrua", "slots": 8, "width": 4},
    {"name": "sparse", "slots": 64, "width": 4, "engine": "torch"},
    {"name": "sparse_dnc", "slots": 64, "width": 4},
    {"name": "product_key", "slots": 64, "width": 4, "knn": 3, "key_width": 8, "gate": True},
    {"name": "memory_network", "slots": 8, "width": 4},
]


class Scripted(Memory[Tensor]):
    """Shows the weights that it hears."""

    interface_size = read_size = 4

    def init_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 4)

    def forward(self, interface: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return interface, interface

    def trace(self, state: Tensor) -> dict[str, Tensor]:
        return {"read weights": state.unsqueeze(1)}

    def gauges(self, interface: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {"gate": interface[:, 0]}


def health(steps: list[list[list[float]]], valid: Tensor | None = None) -> dict[str, float]:
    memory, seen = Scripted(), Health()
    seen.sequence(memory, torch.tensor(steps), memory.init_state(len(steps)), valid)
    return seen.of(memory)


def test_a_sharp_head_that_visits_half_of_the_slots() -> None:
    found = health([[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]])
    assert found == pytest.approx(
        {
            "read_sharpness_percent": 100,
            "read_entropy_percent": 0,
            "read_slots_used_percent": 50,
            "gate_percent": 50,
        }
    )


def test_a_head_that_looks_everywhere() -> None:
    found = health([[[0.25] * 4] * 3])
    assert found["read_sharpness_percent"] == pytest.approx(25)
    assert found["read_entropy_percent"] == pytest.approx(100)
    assert found["read_slots_used_percent"] == pytest.approx(100)


def test_weights_need_not_sum_to_one_and_nothing_has_no_entropy() -> None:
    found = health([[[0.5, 0, 0, 0], [0, 0, 0, 0]]])
    assert found["read_sharpness_percent"] == pytest.approx(25)
    assert found["read_entropy_percent"] == pytest.approx(0)


def test_padding_does_not_count() -> None:
    sequences = [[[1.0, 0, 0, 0], [0.25] * 4], [[0, 1.0, 0, 0], [0, 1.0, 0, 0]]]
    found = health(sequences, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert found["read_sharpness_percent"] == pytest.approx(100)
    assert found["read_slots_used_percent"] == pytest.approx(25)


def test_a_row_that_stands_twice_is_one_row() -> None:
    heads = Heads(torch.tensor([[[0.25, 0.5, 0.25]]]), 9, torch.tensor([[[4, 1, 4]]]))
    assert merged(heads).tolist() == [[[0.5, 0.5, 0.0]]]


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: memory["name"])
def test_every_memory_has_signs_of_life(memory: dict[str, Any]) -> None:
    model = MANN(LSTM, memory, SPEC).eval()
    torch.manual_seed(0)
    x, valid = torch.randn(2, 6, 3), torch.ones(2, 6)
    valid[0, 3:] = 0
    seen = Health()
    with torch.no_grad():
        torch.testing.assert_close(model({"x": x}, valid, trace=seen), model({"x": x}, valid))
    found = seen.of(model.memory)
    assert {"read_sharpness_percent", "read_entropy_percent", "read_slots_used_percent"} <= set(found)
    assert all(-1e-4 <= value <= 100.001 and math.isfinite(value) for value in found.values()), found
    rubbish = Health()
    x[0, 3:] = 9
    with torch.no_grad():
        model({"x": x}, valid, trace=rubbish)
    if memory["name"] != "memory_network":  # whose places for steps include those of padding
        assert rubbish.of(model.memory) == pytest.approx(found, abs=1e-3)


def test_no_memory_shows_nothing() -> None:
    model, seen = MANN(LSTM, {"name": "none"}, SPEC), Health()
    model({"x": torch.zeros(1, 2, 3)}, trace=seen)
    assert seen.of(model.memory) == {}


@pytest.mark.parametrize("name", ["sparse", "sparse_dnc"])
def test_few_rows_of_many_say_what_all_would(name: str) -> None:
    model = MANN(LSTM, {"name": name, "slots": 40, "width": 4}, SPEC).eval()
    memory = model.memory
    state = memory.init_state(2)
    few, all_rows = Health(), Health()
    for said in torch.randn(7, 2, memory.interface_size):
        _, state = memory.step(said, state)
        few.step(memory, said, state, None)
        whole = {
            title.removesuffix(" weights"): Heads(w, w.shape[-1]) for title, w in memory.trace(state).items()
        }
        all_rows._tally(memory).add(Vitals(whole, memory.gauges(said, state)), None)
    assert few.of(memory) == pytest.approx(all_rows.of(memory), abs=1e-3)


def test_memories_inside_a_controller_are_seen() -> None:
    controller = {"name": "transformer", "width": 8, "layers": 2, "heads": 2, "memory_blocks": [1]}
    memory = {"name": "product_key", "slots": 16, "width": 8, "knn": 2, "key_width": 4}
    model, seen = MANN(controller, memory, SPEC).eval(), Health()
    with watched(model, seen):
        model({"x": torch.randn(2, 3, 3)}, trace=seen)
    ((hosted, suffix),) = model.named_memories()
    assert suffix == "_block_1"
    assert "read_sharpness_percent" in seen.of(hosted)
    model({"x": torch.randn(2, 3, 3)})
    assert all(getattr(part, "watch", None) is None for part in model.modules())


def test_segments_count_a_step_of_the_memory_once() -> None:
    controller = {"name": "transformer", "width": 8, "layers": 1, "heads": 2, "segment": 2}
    model, seen = MANN(controller, {"name": "dense", "slots": 8, "width": 4}, SPEC).eval(), Health()
    calls = []
    step = seen.step
    seen.step = lambda *given: (calls.append(given[1] is not None), step(*given))[1]  # type: ignore[method-assign]
    with torch.no_grad():
        model({"x": torch.randn(1, 5, 3)}, trace=seen)
    assert calls.count(True) == 2
