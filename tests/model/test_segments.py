"""A transformer that hears its memory once per segment."""

from __future__ import annotations

import pytest
import torch

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.errors import ConfigError
from mannlab.model import MANN

SPEC = StreamSpec({"x": Vector(3)}, Bits(2))


def make(segment: int, memory: str = "dense", context: int | None = None, **options) -> MANN:
    torch.manual_seed(0)
    controller = {"name": "transformer", "width": 8, "layers": 2, "heads": 2, "feedforward": 8}
    shape = {"name": memory, "slots": 9, "width": 4, "init": "learned"}
    model = MANN(controller | {"segment": segment, "context": context}, shape, SPEC, **options).double()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.3
    return model


def draw(batch: int, steps: int) -> torch.Tensor:
    return torch.randn(batch, steps, 3, dtype=torch.float64)


def counted(model: MANN, monkeypatch) -> list[int]:
    calls: list[int] = []
    forward = type(model.memory).forward
    monkeypatch.setattr(
        type(model.memory), "forward", lambda self, *parts: calls.append(1) or forward(self, *parts)
    )
    return calls


def test_one_step_a_segment_is_the_same_as_stepping():
    one = make(1)
    x = draw(2, 7)
    wanted = one({"x": x})
    one.controller.segment = 2
    assert not torch.allclose(one({"x": x}), wanted)
    from mannlab.model.segments import segmented

    one.controller.segment = 1
    parts = (one.controller, one.memory, one.interface, x, one.init_state(2, x))
    hidden, reads, _ = segmented(*parts)
    torch.testing.assert_close(one.head(torch.cat([hidden, reads], -1)), wanted)


def test_the_memory_steps_once_a_segment(monkeypatch):
    model = make(4)
    calls = counted(model, monkeypatch)
    model({"x": draw(2, 11)})
    assert len(calls) == 2


@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_a_stream_goes_on_wherever_it_was_cut(cut, context):
    model = make(3, context=context)
    x = draw(2, 10)
    whole, last = model.run({"x": x})
    first, state = model.run({"x": x[:, :cut]})
    second, after = model.run({"x": x[:, cut:]}, state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(after.memory, last.memory)


@pytest.mark.parametrize("memory", ["dense", "sparse"])
def test_padding_is_held_and_rows_of_different_progress_go_on(memory):
    model = make(3, memory)
    x, more = draw(2, 7), draw(2, 5)
    valid = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], dtype=torch.float64)
    first, state = model.run({"x": x}, valid)
    after, _ = model.run({"x": more}, state=state)
    for row, length in ((0, 4), (1, 7)):
        alone = torch.cat([x[row : row + 1, :length], more[row : row + 1]], 1)
        wanted = model({"x": alone})
        torch.testing.assert_close(first[row, :length], wanted[0, :length])
        torch.testing.assert_close(after[row], wanted[0, length:])


def test_later_inputs_change_no_earlier_output():
    model, x = make(3), draw(1, 9)
    before = model({"x": x})
    for t in range(9):
        changed = x.clone()
        changed[:, t:] += 1
        torch.testing.assert_close(model({"x": changed})[:, :t], before[:, :t])


def test_what_a_segment_writes_is_heard_in_the_next_ones():
    model, x = make(3, context=1), draw(1, 9)
    before = model({"x": x})
    changed = x.clone()
    changed[:, 2] += 1
    moved = (model({"x": changed}) - before).abs().amax(-1)[0] > 1e-9
    assert moved.tolist() == [False] * 2 + [True] * 7
    changed = x.clone()
    changed[:, 1] += 1  # of which the memory is told nothing: not the last of its segment
    moved = (model({"x": changed}) - before).abs().amax(-1)[0] > 1e-9
    assert moved.tolist() == [t == 1 for t in range(9)]


@pytest.mark.parametrize("every", [1, 2, 4])
def test_recomputing_cuts_no_segment(every):
    model, x = make(3), draw(2, 8)
    loss = model({"x": x}).square().sum()
    wanted = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    model.checkpoint_every = every
    loss = model({"x": x}).square().sum()
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_a_trace_has_an_entry_for_every_step():
    trace: dict[str, list[torch.Tensor]] = {}
    make(3)({"x": draw(2, 8)}, trace=trace)
    assert {len(steps) for steps in trace.values()} == {8}


def test_a_segment_is_at_least_one_step():
    with pytest.raises(ConfigError, match=r"controller\.segment: 0"):
        make(0)


def test_segments_of_a_memory_that_is_not_fed_back_are_refused():
    controller = {"name": "transformer", "width": 8, "heads": 2, "layers": 1, "segment": 4}
    memory = {"name": "memory_network", "slots": 8, "width": 4}
    with pytest.raises(ConfigError, match=r"controller\.segment: 4 is not allowed with"):
        MANN(controller, memory, SPEC)
    MANN(controller, memory, SPEC, feedback=True)
