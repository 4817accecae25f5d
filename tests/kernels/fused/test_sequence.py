"""A fused sequence against the same model step by step, whose steps are held to the definition elsewhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.kernels.fused import buffers
from mannlab.model import MANN

SPEC = StreamSpec({"x": Vector(3)}, Bits(2))
CONTROLLERS = ["lstm", "gru", "feedforward"]


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch):
    monkeypatch.setattr(buffers, "fill", float("nan"))


def make(
    controller: str, dtype: torch.dtype = torch.float64, layers: int = 1, name: str = "dense", **memory
) -> MANN:
    torch.manual_seed(0)
    options = {"name": controller, "hidden": 6, "layers": layers}
    model = MANN(options, {"name": name, "init": "learned", **memory}, SPEC).to(dtype)
    for parameter in model.parameters():  # initial states are zeros otherwise
        parameter.data += torch.randn_like(parameter) * 0.3
    return model


def draw(batch: int, steps: int, padded: bool, dtype: torch.dtype = torch.float64):
    x = torch.randn(batch, steps, 3, dtype=dtype)
    if not padded:
        return x, None
    lengths = torch.randint(0, steps + 1, (batch, 1))
    return x, (torch.arange(steps) < lengths).to(dtype)


def results(model: MANN, backend: str, x, valid, state=None):
    """Outputs, last state and all gradients of a random function of them."""
    model.backend = backend
    model.zero_grad()
    x = x.clone().requires_grad_()
    logits, last = model.run({"x": x}, valid, state=state)
    outputs = {"logits": logits, "reads": last.reads}
    outputs |= {f"memory {n}": part for n, part in enumerate(last.memory)}
    parts = [part for part in last.controller if isinstance(part, torch.Tensor)]
    outputs |= {f"controller {n}": part for n, part in enumerate(parts)}
    torch.manual_seed(3)
    sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in outputs.values()).backward()
    found = {name: out.detach() for name, out in outputs.items()} | {"on x": x.grad}
    return found | {f"on {name}": parameter.grad for name, parameter in model.named_parameters()}


def assert_same(fast, slow, **tolerance):
    assert fast.keys() == slow.keys()
    for name, value in slow.items():
        if value is None:
            assert fast[name] is None or not fast[name].any(), name
        else:
            torch.testing.assert_close(fast[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=40, deadline=None)
@given(
    controller=st.sampled_from(CONTROLLERS),
    layers=st.integers(1, 2),
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    slots=st.integers(1, 9),
    width=st.integers(1, 5),
    heads=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padded=st.booleans(),
    data=st.data(),
)
def test_equals_step_by_step(controller, layers, batch, steps, slots, width, heads, padded, data):
    moves = data.draw(st.integers(0, (slots - 1) // 2))
    sizes = {"slots": slots, "width": width, "read_heads": heads[0], "write_heads": heads[1]}
    model = make(controller, layers=layers, max_shift=moves, **sizes)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    x, valid = draw(batch, steps, padded)
    slow, fast = (results(model, backend, x, valid) for backend in ("eager", "fused"))
    assert_same(fast, slow, rtol=1e-8, atol=1e-9)
    with torch.no_grad():  # where no history is kept
        torch.testing.assert_close(model({"x": x}, valid), slow["logits"], rtol=1e-8, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    controller=st.sampled_from(CONTROLLERS),
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    slots=st.integers(1, 9),
    width=st.integers(1, 6),
    said=st.fixed_dictionaries({"separate_add": st.booleans(), "strength": st.booleans()}),
    padded=st.booleans(),
    data=st.data(),
)
def test_least_recently_used_access_equals_step_by_step(
    controller, batch, steps, slots, width, said, padded, data
):
    sizes = {"slots": slots, "width": width, "read_heads": data.draw(st.integers(1, min(6, slots)))}
    decay = data.draw(st.sampled_from([0.0, 0.7, 1.0]))
    model = make(controller, name="lrua", decay=decay, **said, **sizes)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    x, valid = draw(batch, steps, padded)
    slow, fast = (results(model, backend, x, valid) for backend in ("eager", "fused"))
    assert_same(fast, slow, rtol=1e-8, atol=1e-9)
    with torch.no_grad():  # where no history is kept
        torch.testing.assert_close(model({"x": x}, valid), slow["logits"], rtol=1e-8, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    controller=st.sampled_from(CONTROLLERS),
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    slots=st.integers(1, 9),
    width=st.integers(1, 6),
    heads=st.integers(1, 6),
    links=st.booleans(),
    repairs=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    padded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_dnc_equals_step_by_step(controller, batch, steps, slots, width, heads, links, repairs, padded, seed):
    sizes = {"slots": slots, "width": width, "read_heads": heads, "links": links}
    masking, deallocation, sharpness = repairs
    sizes |= {"masking": masking, "deallocation": deallocation, "sharpness": sharpness and links}
    model = make(controller, name="dnc", **sizes)
    torch.manual_seed(seed)
    x, valid = draw(batch, steps, padded)
    slow, fast = (results(model, backend, x, valid) for backend in ("eager", "fused"))
    assert_same(fast, slow, rtol=1e-7, atol=1e-9)
    with torch.no_grad():  # where no history is kept
        torch.testing.assert_close(model({"x": x}, valid), slow["logits"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("memory", ["dense", "lrua", "dnc"])
def test_single_precision(controller, padded, memory):
    model = make(controller, torch.float32, name=memory, slots=33, width=7, read_heads=2)
    x, valid = draw(4, 12, padded, torch.float32)
    slow, fast = (results(model, backend, x, valid) for backend in ("eager", "fused"))
    assert_same(fast, slow, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_activations(activation):
    torch.manual_seed(0)
    options = {"name": "feedforward", "hidden": 5, "activation": activation}
    model = MANN(options, {"name": "dense", "slots": 5, "width": 3}, SPEC).double()
    x, _ = draw(2, 4, False)
    slow, fast = (results(model, backend, x, None) for backend in ("eager", "fused"))
    assert_same(fast, slow)


@pytest.mark.parametrize("memory", ["dense", "lrua", "dnc"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads, memory, monkeypatch):
    from mannlab.kernels.fused import rows

    monkeypatch.setattr(rows, "WORTH_A_THREAD", 1)
    before = torch.get_num_threads()
    model = make("lstm", name=memory, slots=9, width=4)
    x, valid = draw(5, 4, True)
    slow = results(model, "eager", x, valid)
    torch.set_num_threads(threads)
    try:
        assert_same(results(model, "fused", x, valid), slow)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("memory", ["dense", "lrua", "dnc"])
def test_goes_on_from_a_state(memory):
    model = make("lstm", name=memory, slots=9, width=4)
    x, _ = draw(2, 6, False)
    whole = model({"x": x})
    first, state = model.run({"x": x[:, :2]})
    second, _ = model.run({"x": x[:, 2:]}, state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


def test_two_backward_passes_give_the_same():
    model = make("gru", slots=9, width=4)
    x, _ = draw(2, 6, False)
    loss = model({"x": x}).square().sum()
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close(first, second)


def test_two_sequences_before_either_goes_backward():
    model = make("lstm", slots=9, width=4)
    (x, _), (y, _) = draw(2, 6, False), draw(2, 6, False)
    alone = torch.autograd.grad(model({"x": x}).sum(), model.interface.weight)
    one, _ = model({"x": x}).sum(), model({"x": y}).sum()
    torch.testing.assert_close(torch.autograd.grad(one, model.interface.weight), alone)


def test_writing_to_what_was_given_out_is_noticed():
    model = make("lstm", slots=9, width=4)
    model.interface.requires_grad_()
    x, _ = draw(2, 6, False)
    driver, holder = (part.fused(part.init_state(2)) for part in (model.controller, model.memory))
    from mannlab.kernels.fused.sequence import run

    first = model.memory.initial_reads(2, x)
    hidden, reads, *_ = run(driver[0], holder[0], model.interface, x, first, None)
    with torch.no_grad():
        hidden.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        reads.sum().backward()


def test_an_update_before_the_backward_pass_is_noticed():
    model = make("lstm", slots=9, width=4)
    x, _ = draw(2, 6, False)
    loss = model({"x": x}).sum()
    with torch.no_grad():
        model.controller.lstm.weight_hh_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("memory", ["dense", "lrua", "dnc"])
def test_nan_is_not_hidden(memory):
    model = make("lstm", torch.float32, name=memory, slots=9, width=4)
    x, _ = draw(2, 6, False, torch.float32)
    x[0, 3] = float("nan")
    logits = model({"x": x})
    assert logits[0, 3:].isnan().all()
    assert logits[0, :3].isfinite().all()
    assert logits[1].isfinite().all()


def test_room_is_given_back_after_backward_and_after_evaluation():
    buffers.forget()
    model = make("lstm", slots=9, width=4)
    x, _ = draw(2, 6, False)
    for _ in range(3):
        model({"x": x}).sum().backward()
        with torch.no_grad():
            model({"x": x})
    assert 0 < len(buffers._free) <= buffers.MOST_KEPT
    buffers.forget()


def test_graph_is_one_node_a_sequence():
    model = make("lstm", slots=9, width=4)

    def nodes(steps: int) -> int:
        found, todo = set(), [model({"x": torch.zeros(1, steps, 3, dtype=torch.float64)}).grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in found:
                found.add(node)
                todo += [following for following, _ in node.next_functions]
        return len(found)

    assert nodes(3) == nodes(30)
