"""The plugin keeps mannlab's contracts, and does what it says."""

import mannlab_ring
import torch

from mannlab.checks import check_memory, check_task
from mannlab.contracts import Split
from mannlab.draws import Draws


def test_contracts() -> None:
    check_memory("ring", slots=4, width=3)
    check_task("reverse", bits=3, max_length=4, sequences=8)


def test_the_oldest_slot_is_overwritten() -> None:
    memory = mannlab_ring.RingMemory(slots=2, width=1)
    said = torch.tensor([[[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]]])
    _, state = memory.sequence(said, memory.init_state(1))
    assert torch.allclose(state.memory.flatten(), torch.tanh(torch.tensor([3.0, 2.0])))


def test_the_answer_is_the_sequence_backwards() -> None:
    batch = mannlab_ring.Reverse(bits=4).batch(Split("train"), Draws(0, "train"), 0, 5)
    for x, y, scored in zip(batch.inputs["x"], batch.targets, batch.scored, strict=True):
        length = int(scored.sum())
        assert torch.equal(y[scored > 0], x[:length, :-1].flip(0))
