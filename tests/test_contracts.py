"""What the contracts themselves do: batches, held states, and the loops over time."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mannlab.contracts import Batch, Controller, Memory, Split, Task, hold


class Total(NamedTuple):
    """``sum[B, 2]`` of everything said, ``steps[B]``."""

    sum: Tensor
    steps: Tensor


class Adder(Memory[Total]):
    """Reads back the sum of everything said so far."""

    def __init__(self) -> None:
        super().__init__()
        self.interface_size = self.read_size = 2

    def init_state(self, batch: int) -> Total:
        return Total(torch.zeros(batch, 2), torch.zeros(batch))

    def forward(self, interface: Tensor, state: Total) -> tuple[Tensor, Total]:
        total = state.sum + interface
        return total, Total(total, state.steps + 1)


class InPlace(Adder):
    """The same, changing its one buffer: a state that is consumed."""

    def forward(self, interface: Tensor, state: Total) -> tuple[Tensor, Total]:
        state.sum.add_(interface)
        state.steps.add_(1)
        return state.sum.clone(), state

    def snapshot(self, state: Total) -> Total:
        return Total(state.sum.clone(), state.steps.clone())


class Counter(Controller[Tensor]):
    """Adds the number of steps so far to its input."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = input_size

    def init_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x + state, state + 1


SAID = torch.arange(12.0).view(2, 3, 2)
VALID = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def batch(valid: Tensor | None = VALID) -> Batch:
    return Batch({"x": SAID, "y": SAID + 1}, SAID + 2, VALID, valid, {"note": torch.ones(2)})


# ---------------------------------------------------------------------- batch


def test_apply_reaches_every_tensor() -> None:
    doubled = batch().apply(lambda tensor: tensor * 2)
    assert torch.equal(doubled.inputs["x"], SAID * 2)
    assert torch.equal(doubled.inputs["y"], SAID * 2 + 2)
    assert torch.equal(doubled.targets, SAID * 2 + 4)
    assert torch.equal(doubled.scored, VALID * 2)
    assert doubled.valid is not None
    assert torch.equal(doubled.valid, VALID * 2)
    assert torch.equal(doubled.extra["note"], torch.full((2,), 2.0))


def test_apply_keeps_an_absent_mask_absent() -> None:
    assert batch(valid=None).apply(lambda tensor: tensor * 2).valid is None


def test_to_moves_every_tensor_and_leaves_the_original() -> None:
    here = batch()
    there = here.to("meta")
    tensors = [*there.inputs.values(), there.targets, there.scored, there.valid, there.extra["note"]]
    assert all(tensor is not None and tensor.device.type == "meta" for tensor in tensors)
    assert here.targets.device.type == "cpu"


def test_length_is_the_number_of_sequences() -> None:
    assert len(batch()) == 2


# ---------------------------------------------------------------------- hold


def test_hold_chooses_row_by_row_through_nested_states() -> None:
    new = (Total(torch.ones(2, 2), torch.ones(2)), torch.ones(2, 3, 4))
    old = (Total(torch.zeros(2, 2), torch.zeros(2)), torch.zeros(2, 3, 4))
    held = hold(torch.tensor([1.0, 0.0]), new, old)
    assert isinstance(held[0], Total)
    assert torch.equal(held[0].sum, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert held[0].steps.tolist() == [1, 0]
    assert held[1].sum(dim=(1, 2)).tolist() == [12, 0]


def test_hold_stops_what_is_not_finite() -> None:
    held = hold(torch.tensor([0.0]), torch.tensor([[float("nan")]]), torch.tensor([[1.0]]))
    assert held.item() == 1


def test_hold_refuses_states_of_different_form() -> None:
    with pytest.raises(ValueError, match="shorter"):
        hold(torch.ones(1), (torch.ones(1), torch.ones(1)), (torch.ones(1),))


# ---------------------------------------------------------------------- memory and controller


@pytest.mark.parametrize("memory", [Adder(), InPlace()], ids=["functional", "in place"])
def test_memory_sequence_is_the_loop_and_padding_does_not_write(memory: Memory[Total]) -> None:
    reads, state = memory.sequence(SAID, memory.init_state(2), VALID)
    assert torch.equal(reads[0], SAID[0].cumsum(0))
    assert torch.equal(state.sum, torch.stack([SAID[0].sum(0), SAID[1, 0]]))
    assert state.steps.tolist() == [3, 1]


def test_memory_sequence_without_a_mask_takes_every_step() -> None:
    _, state = Adder().sequence(SAID, Adder().init_state(2))
    assert state.steps.tolist() == [3, 3]


def test_memory_defaults() -> None:
    memory = Adder()
    state = memory.init_state(1)
    assert memory.snapshot(state) is state
    assert torch.equal(memory.initial_reads(3, SAID), torch.zeros(3, 2))
    assert memory.initial_reads(1, SAID.double()).dtype == torch.float64
    assert memory.trace(state) == {}
    assert memory.stateful


def test_controller_sequence_is_the_loop_and_holds_on_padding() -> None:
    controller = Counter(2)
    outputs, state = controller.sequence(SAID, controller.init_state(2), VALID)
    assert torch.equal(outputs[0], SAID[0] + torch.arange(3.0)[:, None])
    assert state.flatten().tolist() == [3, 1]


@pytest.mark.parametrize("contract", [Memory, Controller, Task])
def test_contracts_cannot_be_made_without_their_parts(contract: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        contract()


# ---------------------------------------------------------------------- task


def test_splits_have_streams_of_their_own() -> None:
    splits = [
        Split("val"),
        Split("test"),
        Split("test", 10, 30, "length_30"),
        Split("test", 10, 50, "length_50"),
    ]
    assert len({split.stream for split in splits}) == 4
    assert Split("train").stream == "train"


def test_a_task_is_known_by_its_name() -> None:
    assert Task.label({"name": "copy", "bits": 8}) == "copy"
