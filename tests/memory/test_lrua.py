"""Least recently used access against its definition, its invariants, and bad sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.errors import ConfigError
from mannlab.kernels.lrua import naive_step
from mannlab.memory import addressing
from mannlab.memory.lrua import LRUAMemory, LRUAState


def naive_sequence(memory: LRUAMemory, interface: torch.Tensor, state: LRUAState):
    """The whole sequence through the definition; the interface's activations are the memory's own."""
    reads = []
    for t in range(interface.shape[1]):
        said = memory.fields(interface[:, t])
        read, *new = naive_step(
            state.memory,
            state.reading,
            state.usage,
            said.key,
            said.gate,
            said.add,
            said.strength,
            memory.decay,
            addressing.NORM_EPSILON,
        )
        state = LRUAState(*new)
        reads.append(read.flatten(1))
    return torch.stack(reads, 1), state


def make(dtype: torch.dtype = torch.float64, init: str = "random", **options) -> LRUAMemory:
    torch.manual_seed(0)
    return LRUAMemory(init=init, **options).to(dtype)


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    slots=st.integers(1, 7),
    width=st.integers(1, 5),
    said=st.fixed_dictionaries({"separate_add": st.booleans(), "strength": st.booleans()}),
    init=st.sampled_from(["learned", "random"]),
    data=st.data(),
)
def test_outputs_state_and_gradients_equal_the_definition(batch, steps, slots, width, said, init, data):
    heads = data.draw(st.integers(1, min(3, slots)))
    decay = data.draw(st.sampled_from([0.0, 0.5, 0.99, 1.0]))
    sizes = {"slots": slots, "width": width, "read_heads": heads}
    memory = make(init=init, decay=decay, **said, **sizes)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    interface = torch.randn(batch, steps, memory.interface_size, dtype=torch.float64, requires_grad=True)
    inputs = [interface, *memory.parameters()]

    results = []
    for run in (memory.sequence, lambda i, s: naive_sequence(memory, i, s)):
        reads, state = run(interface, memory.init_state(batch))
        outputs = [reads, state.memory, state.reading]
        torch.manual_seed(7)
        loss = sum((out * torch.randn_like(out)).sum() for out in outputs)
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        results.append([*outputs, state.writing, state.usage, *grads])
    for fast, slow in zip(*results, strict=True):
        slow = torch.zeros_like(fast) if slow is None else slow
        torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("separate_add", [False, True])
@pytest.mark.parametrize("strength", [False, True])
def test_gradcheck(separate_add, strength):
    memory = make(slots=5, width=3, read_heads=2, separate_add=separate_add, strength=strength)
    interface = torch.randn(2, 3, memory.interface_size, dtype=torch.float64, requires_grad=True)

    def run(x):
        reads, state = memory.sequence(x, memory.init_state(2))
        return reads, state.memory, state.reading

    assert torch.autograd.gradcheck(run, (interface,), atol=1e-6)


@pytest.mark.parametrize("init", ["constant", "learned", "random"])
def test_invariants(init):
    memory = make(torch.float32, init, slots=16, width=4, read_heads=3)
    state = memory.init_state(2)
    for _ in range(20):
        interface = torch.randn(2, memory.interface_size) * 5
        gate = memory.fields(interface).gate
        before = state
        reads, state = memory(interface, state)
        assert (state.reading >= 0).all()
        assert (state.writing >= 0).all()
        torch.testing.assert_close(state.reading.sum(-1), torch.ones(2, 3), atol=1e-5, rtol=0)
        # The indicator has as many ones as there are heads.
        torch.testing.assert_close(state.writing.sum(-1), gate + 3 * (1 - gate), atol=1e-4, rtol=0)
        accessed = (state.reading + state.writing).sum(1)
        torch.testing.assert_close(state.usage, 0.99 * before.usage + accessed)
        assert reads.shape == (2, 12)


def spoken(memory: LRUAMemory, key: torch.Tensor, alpha: float, add: torch.Tensor | None = None):
    """An interface that says these words with every head."""
    heads = memory.read_heads
    parts = [torch.atanh(key).repeat(heads), torch.full((heads,), alpha)]
    if add is not None:
        parts.append(torch.atanh(add).repeat(heads))
    return torch.cat(parts).unsqueeze(0)


def test_of_rows_that_are_equally_used_the_lower_ones_are_recycled():
    memory = make(torch.float64, "constant", slots=6, width=2, read_heads=2)
    state = memory.init_state(1)._replace(usage=torch.tensor([[1.0, 0, 0, 1, 0, 0]], dtype=torch.float64))
    _, state = memory(spoken(memory, torch.tensor([0.5, 0.1], dtype=torch.float64), -50.0), state)
    assert state.writing[0, 0].round().tolist() == [0, 1, 1, 0, 0, 0]


def test_only_the_row_used_least_is_erased_and_by_the_usage_of_the_step_before():
    memory = make(torch.float64, slots=4, width=3, read_heads=2)
    usage = torch.tensor([[0.9, 0.2, 0.7, 0.1]], dtype=torch.float64)
    state = memory.init_state(1)._replace(usage=usage)
    word = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    _, new = memory(spoken(memory, word, -50.0), state)
    torch.testing.assert_close(new.memory[0, 3], 2 * word)
    torch.testing.assert_close(new.memory[0, 1], state.memory[0, 1] + 2 * word)
    torch.testing.assert_close(new.memory[0, [0, 2]], state.memory[0, [0, 2]])


def test_an_open_gate_writes_where_was_read_before():
    memory = make(torch.float64, slots=4, width=3, read_heads=1)
    reading = torch.tensor([[[0.1, 0.6, 0.3, 0.0]]], dtype=torch.float64)
    state = memory.init_state(1)._replace(reading=reading)
    _, new = memory(spoken(memory, torch.full((3,), 0.5, dtype=torch.float64), 50.0), state)
    torch.testing.assert_close(new.writing, reading)


def test_what_was_written_is_the_key_unless_a_word_is_said():
    key, add = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([0.7, 0.6], dtype=torch.float64)
    one = make(torch.float64, "constant", slots=3, width=2, read_heads=1)
    two = make(torch.float64, "constant", slots=3, width=2, read_heads=1, separate_add=True)
    _, first = one(spoken(one, key, -50.0), one.init_state(1))
    _, second = two(spoken(two, key, -50.0, add), two.init_state(1))
    torch.testing.assert_close(first.memory[0, 1], key)
    torch.testing.assert_close(second.memory[0, 1], add)


def test_a_strength_sharpens_what_is_read():
    key = torch.tensor([0.3, -0.2], dtype=torch.float64)
    memory = make(torch.float64, slots=5, width=2, read_heads=1, strength=True)
    read = []
    for said in (-50.0, 20.0):
        strength = torch.tensor([[said]], dtype=torch.float64)
        _, state = memory(torch.cat([spoken(memory, key, -50.0), strength], -1), memory.init_state(1))
        read.append(state.reading.max().item())
    plain = make(torch.float64, slots=5, width=2, read_heads=1)
    _, state = plain(spoken(plain, key, -50.0), plain.init_state(1))
    assert read[0] == pytest.approx(state.reading.max().item())
    assert read[1] > 2 * read[0]


def test_no_gradient_through_usage():
    memory = make(torch.float64, "learned", slots=4, width=3, read_heads=2)
    interface = torch.randn(1, memory.interface_size, dtype=torch.float64, requires_grad=True)
    _, state = memory(interface, memory.init_state(1))
    assert not state.usage.requires_grad
    assert not state.writing.requires_grad


def test_gradients_are_finite_on_a_memory_of_zeros_and_for_extreme_interfaces():
    memory = make(torch.float32, "constant", slots=8, width=4)
    first = memory.init_state(2)
    for scale in (0.0, -1e4, 1e4):
        interface = torch.full((2, 5, memory.interface_size), scale, requires_grad=True)
        reads, state = memory.sequence(interface, first._replace(memory=torch.zeros_like(first.memory)))
        (reads.sum() + state.memory.square().sum()).backward()
        assert interface.grad is not None
        assert torch.isfinite(interface.grad).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"slots": 0}, "memory.slots"),
        ({"width": 0}, "memory.width"),
        ({"read_heads": 0}, "memory.read_heads"),
        ({"slots": 3, "read_heads": 4}, "memory.read_heads"),
        ({"decay": 1.5}, "memory.decay"),
        ({"decay": -0.1}, "memory.decay"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        LRUAMemory(**options)


def test_trace_shows_every_head():
    memory = make(torch.float32, slots=4, width=3, read_heads=2)
    shown = memory.trace(memory.init_state(5))
    assert {title: tuple(w.shape) for title, w in shown.items()} == {
        "read weights": (5, 2, 4),
        "write weights": (5, 2, 4),
    }
