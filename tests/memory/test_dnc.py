"""The Differentiable Neural Computer against its definition, its invariants, and bad options."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.errors import ConfigError
from mannlab.kernels.dnc import DNCInterface, DNCState, naive_step
from mannlab.memory import addressing
from mannlab.memory.dnc import DNCMemory

PLAIN = {"masking": False, "deallocation": False, "sharpness": False}


def naive_sequence(memory: DNCMemory, interface: torch.Tensor, state: DNCState):
    """The whole sequence through the definition; the interface's activations are the memory's own."""
    reads = []
    for t in range(interface.shape[1]):
        said = memory.fields(interface[:, t])
        read, state = naive_step(state, said, memory.deallocation, addressing.NORM_EPSILON)
        reads.append(read.flatten(1))
    return torch.stack(reads, 1), state


def make(dtype: torch.dtype = torch.float64, init: str = "random", **options) -> DNCMemory:
    torch.manual_seed(0)
    return DNCMemory(init=init, **options).to(dtype)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    slots=st.integers(1, 6),
    width=st.integers(1, 4),
    heads=st.integers(1, 3),
    repairs=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    links=st.booleans(),
    init=st.sampled_from(["learned", "random"]),
    data=st.data(),
)
def test_outputs_state_and_gradients_equal_the_definition(
    batch, steps, slots, width, heads, repairs, links, init, data
):
    options = dict(zip(PLAIN, repairs, strict=True)) | {"links": links}
    options["sharpness"] &= links
    memory = make(init=init, slots=slots, width=width, read_heads=heads, **options)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    interface = torch.randn(batch, steps, memory.interface_size, dtype=torch.float64, requires_grad=True)
    inputs = [interface, *memory.parameters()]

    results = []
    for run in (memory.sequence, lambda i, s: naive_sequence(memory, i, s)):
        reads, state = run(interface, memory.init_state(batch))
        outputs = [reads, *state]
        torch.manual_seed(7)
        loss = sum((out * torch.randn_like(out)).sum() for out in outputs)
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        results.append([*outputs, *grads])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "options", [PLAIN, {"sharpness": True}, {"links": False}], ids=["plain", "repaired", "no links"]
)
def test_gradcheck(options):
    memory = make(slots=4, width=3, read_heads=2, **options)
    interface = torch.randn(2, 3, memory.interface_size, dtype=torch.float64, requires_grad=True)

    def run(x):
        reads, state = memory.sequence(x, memory.init_state(2))
        return reads, *state

    assert torch.autograd.gradcheck(run, (interface,), atol=1e-6)


@pytest.mark.parametrize("options", [PLAIN, {}, {"sharpness": True}], ids=["plain", "default", "sharp"])
def test_invariants(options):
    memory = make(torch.float64, "constant", slots=10, width=4, read_heads=3, **options)
    state = memory.init_state(2)
    for _ in range(40):
        interface = torch.randn(2, memory.interface_size, dtype=torch.float64) * 4
        _, state = memory(interface, state)
        for weights in (state.usage, state.reading, state.writing, state.precedence, state.links):
            assert weights.min() >= -1e-12
            assert weights.max() <= 1 + 1e-12
        for sums in (
            state.reading.sum(-1),
            state.writing.sum(-1),
            state.precedence.sum(-1),
            state.links.sum(1),
            state.links.sum(2),
        ):
            assert sums.max() <= 1 + 1e-9
        assert not state.links.diagonal(dim1=1, dim2=2).any()


def test_allocation_takes_the_free_rows_in_order():
    usage = torch.tensor([[1.0, 0.0, 0.5, 0.25]], dtype=torch.float64)
    weights = addressing.allocation(usage)
    torch.testing.assert_close(weights[0].round(decimals=4), torch.tensor([0.0, 1, 0, 0]).double())
    half = addressing.allocation(torch.tensor([[1.0, 0.5, 0.75, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(half[0], torch.tensor([0, 0.5, 0.125, 0]).double(), atol=1e-5, rtol=0)
    tied = addressing.allocation(torch.zeros(1, 4))
    assert tied.argmax() == 0


def test_gradient_of_allocation_is_that_of_its_formula_with_the_order_held():
    usage = torch.tensor([[0.7, 0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    addressing.allocation(usage)[0, 2].backward()
    # (1 - u2) u1
    torch.testing.assert_close(usage.grad, torch.tensor([[0, 0.6, -0.1]]).double(), atol=1e-5, rtol=0)


SAYS = {
    "read_strength": 50.0,
    "write_strength": 50.0,
    "erase": 50.0,
    "write_gate": 50.0,
    "allocation_gate": 50.0,
    "free": -50.0,
}


def spoken(memory: DNCMemory, **fields: torch.Tensor | float) -> torch.Tensor:
    """An interface before activations: SAYS and what is given; the rest zero."""
    parts = []
    for name, size in zip(DNCInterface._fields, memory._fields, strict=True):
        value = fields.get(name, SAYS.get(name, 0.0))
        parts.append(torch.as_tensor(value, dtype=torch.float32).expand(size).clone())
    return torch.cat(parts).unsqueeze(0)


WORDS = torch.eye(4)[:3] * 2
BACKWARD, CONTENT, FORWARD = (torch.tensor(mode) * 50.0 for mode in ([1, 0, 0], [0, 1, 0], [0, 0, 1]))


def remembered(**options) -> tuple[DNCMemory, DNCState, list[int]]:
    """A memory that has been told three words, and in which rows they are."""
    memory = make(torch.float32, "constant", slots=5, width=4, read_heads=1, **PLAIN | options)
    state = memory.init_state(1)
    rows = []
    for word in WORDS:
        _, state = memory(spoken(memory, add=word, modes=CONTENT), state)
        rows.append(int(state.writing[0].argmax()))
    return memory, state, rows


def test_words_go_to_rows_of_their_own_and_are_read_back_in_both_orders():
    memory, state, rows = remembered()
    assert len(set(rows)) == 3
    torch.testing.assert_close(state.memory[0, rows], WORDS, atol=1e-3, rtol=0)
    silent = {"write_gate": -50.0}
    reads, state = memory(spoken(memory, read_key=WORDS[0], modes=CONTENT, **silent), state)
    torch.testing.assert_close(reads[0], WORDS[0], atol=1e-3, rtol=0)
    for mode, word in ((FORWARD, 1), (FORWARD, 2), (BACKWARD, 1), (BACKWARD, 0)):
        reads, state = memory(spoken(memory, modes=mode, **silent), state)
        torch.testing.assert_close(reads[0], WORDS[word], atol=1e-2, rtol=0)


@pytest.mark.parametrize("deallocation", [False, True])
def test_a_freed_row_is_used_again_and_erased_if_so_told(deallocation):
    memory, state, rows = remembered(deallocation=deallocation)
    freed, silent = rows[1], {"write_gate": -50.0}
    _, state = memory(spoken(memory, read_key=WORDS[1], modes=CONTENT, **silent), state)
    before = state.memory[0, freed].norm()
    assert state.usage[0, freed] > 0.99
    _, state = memory(spoken(memory, free=50.0, modes=CONTENT, **silent), state)
    assert state.usage[0, freed] < 0.01
    assert state.usage[0].sum().round() == 2
    assert (state.memory[0, freed].norm() < 0.01 * before) == deallocation
    taken = []
    for _ in range(3):
        _, state = memory(spoken(memory, add=torch.ones(4)), state)
        taken.append(int(state.writing[0].argmax()))
    assert freed in taken
    assert not {rows[0], rows[2]} & set(taken)


def test_a_mask_finds_by_part_of_a_key():
    memory = make(torch.float32, "constant", slots=3, width=4, read_heads=1, masking=True)
    rows = torch.tensor([[[1.0, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0]]])
    state = memory.init_state(1)._replace(memory=rows)
    said = {"read_key": torch.tensor([1.0, 0, 0, 1]), "write_gate": -50.0, "modes": CONTENT}
    first = memory(spoken(memory, read_mask=torch.tensor([50.0, 50, -50, -50]), **said), state)[1]
    last = memory(spoken(memory, read_mask=torch.tensor([-50.0, -50, 50, 50]), **said), state)[1]
    assert (first.reading.argmax(), last.reading.argmax()) == (0, 1)


def test_sharpness_brings_out_the_strongest_link():
    memory = make(torch.float64, slots=3, width=2, read_heads=1, **PLAIN | {"sharpness": True})
    links = torch.tensor([[0, 0, 0.2], [0.5, 0, 0.0], [0.3, 0, 0.0]]).double().unsqueeze(0)
    reading = torch.tensor([[[1.0, 0, 0]]]).double()
    state = memory.init_state(1)._replace(links=links, reading=reading)
    found = []
    for sharpness in (-50.0, 50.0):
        said = {"write_gate": -50.0, "modes": FORWARD, "sharpness": sharpness}
        found.append(memory(spoken(memory, **said).double(), state)[1].reading[0, 0])
    torch.testing.assert_close(found[0], torch.tensor([0, 0.625, 0.375]).double(), atol=1e-4, rtol=0)
    assert found[1][1] > 0.999


def test_without_links_nothing_is_kept_of_them():
    memory = make(slots=6, width=3, links=False)
    interface = torch.randn(2, memory.interface_size, dtype=torch.float64)
    _, state = memory(interface, memory.init_state(2))
    assert state.links.numel() == state.precedence.numel() == 0
    assert memory.interface_size == make(slots=6, width=3).interface_size - 3 * 4


def test_gradients_are_finite_on_a_memory_of_zeros_and_for_extreme_interfaces():
    memory = make(torch.float32, "constant", slots=20, width=4, sharpness=True)
    first = memory.init_state(2)
    for scale in (0.0, -1e3, 1e3):
        interface = torch.full((2, 5, memory.interface_size), scale, requires_grad=True)
        reads, state = memory.sequence(interface, first._replace(memory=torch.zeros_like(first.memory)))
        (reads.sum() + state.links.square().sum()).backward()
        assert interface.grad is not None
        assert torch.isfinite(interface.grad).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"slots": 0}, "memory.slots"),
        ({"width": 0}, "memory.width"),
        ({"read_heads": 0}, "memory.read_heads"),
        ({"links": False, "sharpness": True}, "memory.sharpness"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        DNCMemory(**options)


def test_trace_shows_every_head():
    memory = make(torch.float32, slots=4, width=3, read_heads=2)
    shown = memory.trace(memory.init_state(5))
    assert {title: tuple(w.shape) for title, w in shown.items()} == {
        "read weights": (5, 2, 4),
        "write weights": (5, 1, 4),
    }
