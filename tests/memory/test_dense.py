"""The dense memory against its definition, its invariants, and bad sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.errors import ConfigError
from mannlab.kernels.ntm import naive_step
from mannlab.memory import addressing
from mannlab.memory.dense import DenseMemory, DenseState


def naive_sequence(memory: DenseMemory, interface: torch.Tensor, state: DenseState):
    """The whole sequence through the definition; the interface's activations are the memory's own."""
    rows, weights = state
    reads = []
    for t in range(interface.shape[1]):
        said = memory.fields(interface[:, t])
        read, weights, rows = naive_step(
            rows,
            weights,
            said.key,
            said.strength,
            said.gate,
            said.shift,
            said.exponent,
            said.erase,
            said.add,
            addressing.NORM_EPSILON,
        )
        reads.append(read.flatten(1))
    return torch.stack(reads, 1), DenseState(rows, weights)


def make(dtype: torch.dtype = torch.float64, **options) -> DenseMemory:
    torch.manual_seed(0)
    return DenseMemory(**options).to(dtype)


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 4),
    slots=st.integers(1, 7),
    width=st.integers(1, 5),
    read_heads=st.integers(1, 3),
    write_heads=st.integers(1, 3),
    init=st.sampled_from(["constant", "learned", "random"]),
    data=st.data(),
)
def test_outputs_state_and_gradients_equal_the_definition(
    batch, steps, slots, width, read_heads, write_heads, init, data
):
    max_shift = data.draw(st.integers(0, (slots - 1) // 2))
    sizes = {"slots": slots, "width": width, "read_heads": read_heads, "write_heads": write_heads}
    memory = make(**sizes, max_shift=max_shift, init=init)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    interface = torch.randn(batch, steps, memory.interface_size, dtype=torch.float64, requires_grad=True)
    inputs = [interface, *memory.parameters()]

    results = []
    for run in (memory.sequence, lambda i, s: naive_sequence(memory, i, s)):
        reads, state = run(interface, memory.init_state(batch))
        outputs = [reads, state.memory, state.weights]
        torch.manual_seed(7)
        loss = sum((out * torch.randn_like(out)).sum() for out in outputs)
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        results.append([*outputs, *grads])
    for fast, slow in zip(*results, strict=True):
        if slow is None:
            assert fast is None
        else:
            torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9)


def test_gradcheck():
    memory = make(slots=5, width=3, read_heads=2, write_heads=2, init="learned")
    interface = torch.randn(2, 3, memory.interface_size, dtype=torch.float64, requires_grad=True)

    def run(x):
        reads, state = memory.sequence(x, memory.init_state(2))
        return reads, *state

    assert torch.autograd.gradcheck(run, (interface,), atol=1e-6)


@pytest.mark.parametrize("init", ["constant", "learned", "random"])
def test_weights_sum_to_one_and_are_not_negative(init):
    memory = make(torch.float32, slots=16, width=4, read_heads=2, write_heads=2, max_shift=2, init=init)
    state = memory.init_state(3)
    for _ in range(20):
        _, state = memory(torch.randn(3, memory.interface_size) * 5, state)
        assert (state.weights >= 0).all()
        torch.testing.assert_close(state.weights.sum(-1), torch.ones(3, 4), atol=1e-5, rtol=0)


def test_gradients_are_finite_on_a_memory_of_zeros():
    memory = make(torch.float32, slots=8, width=4)
    first = memory.init_state(2)
    interface = torch.zeros(2, 5, memory.interface_size, requires_grad=True)
    reads, state = memory.sequence(interface, first._replace(memory=torch.zeros_like(first.memory)))
    (reads.sum() + state.memory.square().sum()).backward()
    assert interface.grad is not None
    assert torch.isfinite(interface.grad).all()


def test_extreme_interfaces_stay_finite():
    memory = make(torch.float32, slots=8, width=4)
    for scale in (-1e4, 1e4):
        interface = torch.full((1, 6, memory.interface_size), scale, requires_grad=True)
        reads, state = memory.sequence(interface, memory.init_state(1))
        (reads.sum() + state.weights.square().sum()).backward()
        assert torch.isfinite(reads).all()
        assert torch.isfinite(interface.grad).all()


def spoken(memory: DenseMemory, **fields: torch.Tensor) -> torch.Tensor:
    """An interface vector, before activations, from the fields that matter; the rest zero."""
    names = ["key", "strength", "gate", "shift", "exponent", "erase", "add"]
    sizes = dict(zip(names, memory._fields, strict=True))
    parts = [fields.get(name, torch.zeros(sizes[name])).reshape(-1) for name in names]
    return torch.cat(parts).unsqueeze(0)


def test_a_head_moves_exactly_as_told():
    """Gate shut and shift +1: the weights of a focused head walk one slot a step, round the end."""
    memory = make(torch.float32, slots=5, width=3)
    shift = torch.tensor([[-50.0, -50.0, 50.0]]).repeat(2, 1)
    told = spoken(memory, gate=torch.full((2,), -50.0), shift=shift, exponent=torch.full((2,), 5.0))
    state = memory.init_state(1)
    places = []
    for _ in range(6):
        _, state = memory(told, state)
        places.append(int(state.weights[0, 0].argmax()))
    assert places == [1, 2, 3, 4, 0, 1]
    assert state.weights.max() > 0.99


def test_what_was_written_is_read_back_by_content():
    memory = make(torch.float32, slots=6, width=3, max_shift=0)
    word = torch.tensor([0.9, -0.8, 0.7])
    shut = torch.full((2,), -50.0)
    write = spoken(memory, gate=shut, erase=torch.full((3,), 50.0), add=torch.atanh(word))
    look = spoken(
        memory,
        key=torch.stack([torch.atanh(word), torch.zeros(3)]),
        strength=torch.tensor([60.0, 0.0]),
        gate=torch.tensor([50.0, -50.0]),
        erase=torch.full((3,), -50.0),
    )
    state = memory.init_state(1)
    state = state._replace(weights=torch.nn.functional.one_hot(torch.tensor([[0, 2]]), 6).float())
    _, state = memory(write, state)
    reads, _ = memory(look, state)
    torch.testing.assert_close(reads[0], word, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"slots": 0}, "memory.slots"),
        ({"width": 0}, "memory.width"),
        ({"read_heads": 0}, "memory.read_heads"),
        ({"write_heads": -1}, "memory.write_heads"),
        ({"slots": 4, "max_shift": 2}, "memory.max_shift"),
        ({"max_shift": -1}, "memory.max_shift"),
    ],
)
def test_impossible_sizes_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        DenseMemory(**options)


def test_random_memory_is_the_same_in_every_episode_and_kept_in_checkpoints():
    memory = make(torch.float32, slots=4, width=3, init="random")
    assert torch.equal(memory.init_state(2).memory[0], memory.init_state(2).memory[1])
    twin = DenseMemory(slots=4, width=3, init="random")
    twin.load_state_dict(memory.state_dict())
    assert torch.equal(twin.init_state(1).memory, memory.init_state(1).memory)


def test_trace_shows_every_head():
    memory = make(torch.float32, slots=4, width=3, read_heads=2, write_heads=1)
    shown = memory.trace(memory.init_state(5))
    assert {title: tuple(w.shape) for title, w in shown.items()} == {
        "read weights": (5, 2, 4),
        "write weights": (5, 1, 4),
    }
