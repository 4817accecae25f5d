"""The memory network: parallel, step by step and slot by slot are one; the linear start; the settings."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab import registry
from mannlab.checks import check_memory
from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.errors import ConfigError
from mannlab.kernels.memory_network import naive
from mannlab.memory.memory_network import MemoryNetwork, MemoryNetworkState
from mannlab.model import MANN

TYINGS = ("adjacent", "layer_wise", "key_value")


def make(seed: int = 0, **options) -> MemoryNetwork:
    torch.manual_seed(seed)
    memory = registry.build("memory", "memory_network", **{"slots": 4, "width": 3, **options}).double()
    for matrix in memory.matrices:
        torch.nn.init.normal_(matrix, std=0.7)
    return memory


def said(memory: MemoryNetwork, batch: int, steps: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (batch, steps, memory.interface_size)
    return torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_()


def slots_of(state: MemoryNetworkState, most: int) -> list[list[tuple[torch.Tensor, int]]]:
    return [
        [(content, int(age)) for content, age in zip(*row, strict=True) if age < most]
        for row in zip(state.written, state.ages, strict=True)
    ]


def naively(memory, interface, valid, state, gaps=None):
    width = memory.width
    gaps = torch.zeros(interface.shape[:2]) if gaps is None else gaps
    valid = torch.ones(interface.shape[:2]) if valid is None else valid
    own = 0 if memory.tying == "adjacent" else width  # there the query is the first key
    contents = interface[..., own:].unflatten(-1, (memory.embeddings, width))
    return naive.run(interface[..., :width], contents, gaps, valid, state, memory._hops())


def padding(lengths: list[int], steps: int) -> torch.Tensor:
    return (torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)).double()


@pytest.mark.parametrize("tying", TYINGS)
@pytest.mark.parametrize("extra", [{}, {"temporal": False}, {"linear_start": 9}, {"rectify": "half"}])
def test_contract(tying, extra):
    check_memory("memory_network", slots=3, width=4, hops=2, tying=tying, noise=0.1, **extra)


@settings(max_examples=40, deadline=None)
@given(
    tying=st.sampled_from(TYINGS),
    temporal=st.booleans(),
    linear=st.booleans(),
    rectify=st.sampled_from(["none", "half", "all"]),
    batch=st.integers(1, 3),
    steps=st.integers(1, 9),
    slots=st.integers(1, 5),
    width=st.integers(1, 4),
    hops=st.integers(1, 3),
    data=st.data(),
)
def test_equals_the_definition(tying, temporal, linear, rectify, batch, steps, slots, width, hops, data):
    """Outputs, state and all gradients, in two calls, the first of them padded."""
    options = {"slots": slots, "width": width, "hops": hops, "rectify": rectify}
    memory = make(tying=tying, temporal=temporal, linear_start=9 * linear, **options).eval()
    lengths = data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    valid = padding(lengths, steps) if data.draw(st.booleans()) else None
    one, two = said(memory, batch, steps), said(memory, batch, steps, seed=2)
    leaves = [one, two, *memory.parameters()]

    def gradients(reads, more):
        real = reads if valid is None else reads * valid.unsqueeze(-1)
        total = real.sin().sum() + more.sin().sum()
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    reads, state = memory.sequence(one, memory.init_state(batch), valid)
    more, last = memory.sequence(two, state)
    wanted, slot_list = naively(memory, one, valid, [[] for _ in range(batch)])
    wanted_more, end = naively(memory, two, None, slot_list)
    real = slice(None) if valid is None else valid.bool()
    assert torch.allclose(reads[real], wanted[real], atol=1e-10)
    assert torch.allclose(more, wanted_more, atol=1e-10)
    for mine, theirs in zip(slots_of(last, slots), end, strict=True):
        assert [age for _, age in mine] == [age for _, age in theirs]
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(mine, theirs, strict=True))
    for found, right in zip(gradients(reads, more), gradients(wanted, wanted_more), strict=True):
        assert torch.allclose(found, right, atol=1e-9)


@pytest.mark.parametrize("tying", TYINGS)
def test_sequence_equals_steps_and_goes_on(tying):
    memory = make(tying=tying, slots=5).eval()
    interface = said(memory, 3, 17)
    valid = padding([17, 2, 0], 17)
    whole, end = memory.sequence(interface, memory.init_state(3), valid)
    state, reads = memory.init_state(3), []
    for t in range(17):
        read, state = memory.step(interface[:, t], state, valid[:, t])
        reads.append(read)
    real = valid.bool()
    assert torch.allclose(torch.stack(reads, 1)[real], whole[real], rtol=0, atol=1e-13)
    assert slots_ages(state, 5) == slots_ages(end, 5) == [[4, 3, 2, 1, 0], [1, 0], []]
    halves, state = [], memory.init_state(3)
    for part in (slice(0, 1), slice(1, 8), slice(8, 17)):
        read, state = memory.sequence(interface[:, part], state, valid[:, part])
        halves.append(read)
    assert torch.allclose(torch.cat(halves, 1)[real], whole[real], rtol=0, atol=1e-13)


def slots_ages(state, most):
    return [[age for _, age in row] for row in slots_of(state, most)]


def test_the_oldest_are_forgotten():
    memory = make(slots=3).eval()
    interface = said(memory, 1, 8).detach()
    changed = interface.clone()
    changed[:, 2] += 1
    one, _ = memory.sequence(interface, memory.init_state(1))
    two, _ = memory.sequence(changed, memory.init_state(1))
    differs = (one != two).any(-1)[0].tolist()
    assert differs == [False, False, True, True, True, True, False, False]


def test_a_first_step_reads_its_own_query():
    memory = make().eval()
    interface = said(memory, 2, 1)
    reads, _ = memory.sequence(interface, memory.init_state(2))
    assert torch.equal(reads[:, 0], interface[:, 0, :3])


@pytest.mark.parametrize("linear", [False, True])
def test_empty_slots_make_what_is_there_older(monkeypatch, linear):
    memory = make(noise=0.4, linear_start=9 * linear, slots=6).train()
    gaps = torch.tensor([[0.0, 1, 1, 0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 1, 0]])
    drawn = []

    def rand(size, device=None):
        part = gaps[:, len(drawn) and drawn[-1] : (drawn[-1] if drawn else 0) + size[1]]
        drawn.append((drawn[-1] if drawn else 0) + size[1])
        return torch.where(part > 0, 0.1, 0.9)

    interface = said(memory, 2, 9)
    valid = padding([9, 7], 9)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", rand)
        reads, state = memory.sequence(interface, memory.init_state(2), valid)
    wanted, slots = naively(memory, interface, valid, [[], []], gaps)
    assert torch.allclose(reads[valid.bool()], wanted[valid.bool()], atol=1e-12)
    assert slots_ages(state, 6) == [[age for _, age in row] for row in slots]
    assert max(max(ages) for ages in slots_ages(state, 6)) == 5


def test_noise_is_for_training_alone():
    memory = make(noise=0.5)
    interface = said(memory, 4, 8)
    quiet = make(noise=0.0)
    wanted = quiet.eval().sequence(interface, quiet.init_state(4))[0]
    assert torch.equal(memory.eval().sequence(interface, memory.init_state(4))[0], wanted)
    assert not torch.equal(memory.train().sequence(interface, memory.init_state(4))[0], wanted)


# ---------------------------------------------------------------------- the linear start


def test_linear_start_ends_when_the_loss_stops_falling():
    memory = make(linear_start=9, patience=2)
    interface = said(memory, 1, 4)

    def reads():
        return memory.sequence(interface, memory.init_state(1))[0]

    first = reads()
    for loss in (3.0, 2.0, 2.5, 1.5, 1.6, float("nan")):
        assert memory.linear
        memory.end_validation(loss)
    saved = deepcopy(memory.state_dict())
    assert torch.equal(memory.eval()(interface[:, 0], memory.init_state(1))[0], interface[:, 0, :3])
    assert torch.equal(reads(), first), "what is saved with a validation is what was measured"
    memory.train()
    assert not torch.equal(reads(), first)
    assert not memory.linear
    memory.end_validation(9.0)
    assert not memory.linear, "it is over once and for all"
    resumed = make(seed=5, linear_start=9, patience=2)
    resumed.load_state_dict(saved)
    assert resumed.linear
    resumed.train().sequence(interface, resumed.init_state(1))
    assert not resumed.linear


def test_linear_start_ends_after_so_many_validations():
    memory = make(linear_start=2, patience=5)
    interface = said(memory, 1, 4)
    for loss in (3.0, 2.0):
        memory.sequence(interface, memory.init_state(1))
        assert memory.linear
        memory.end_validation(loss)
    memory.eval().sequence(interface, memory.init_state(1))
    assert memory.linear
    memory.train().sequence(interface, memory.init_state(1))
    assert not memory.linear


def test_a_linear_start_can_be_given_up():
    saved = make(linear_start=3).state_dict()
    memory = make()
    memory.load_state_dict(saved)
    assert not memory.linear


def test_mixed_precision():
    memory = make(slots=6).float()
    interface = said(memory, 2, 9).float().detach()
    whole = memory.sequence(interface, memory.init_state(2))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, state = memory.sequence(interface[:, :4], memory.init_state(2))
        more, _ = memory.sequence(interface[:, 4:].bfloat16(), state)
    assert torch.isfinite(mixed).all()
    torch.testing.assert_close(torch.cat([mixed, more], 1).float(), whole, rtol=0.2, atol=0.3)


def test_without_linear_start_validations_mean_nothing():
    memory = make()
    memory.end_validation(1.0)
    assert not memory.linear
    assert int(memory.waited) == 0


# ---------------------------------------------------------------------- with a controller


def model(controller: str, **options) -> MANN:
    torch.manual_seed(0)
    sizes = (
        {"width": 8, "layers": 1, "heads": 2, "feedforward": 8}
        if controller == "transformer"
        else {"hidden": 6}
    )
    memory = {"name": "memory_network", "slots": 4, "width": 3}
    spec = StreamSpec({"x": Vector(2)}, Bits(2))
    return MANN({"name": controller, **sizes}, memory, spec, **options).double().eval()


@pytest.mark.parametrize("controller", ["lstm", "gru", "feedforward", "transformer"])
def test_reads_are_not_fed_back_unless_asked(controller):
    assert not model(controller).stepwise
    fed = model(controller, feedback=True)
    assert fed.stepwise
    x = torch.randn(2, 7, 2, dtype=torch.float64)
    for net in (model(controller), fed):
        whole, _ = net.run({"x": x})
        first, state = net.run({"x": x[:, :3]})
        second, _ = net.run({"x": x[:, 3:]}, state=state)
        assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-12)
        whole.sum().backward()
        assert all(p.grad is not None for p in net.parameters())


def test_history_can_be_made_again():
    plain, cut = model("lstm", feedback=True), model("lstm", feedback=True, checkpoint_every=3)
    x = torch.randn(2, 7, 2, dtype=torch.float64)
    one, two = plain({"x": x}), cut({"x": x})
    assert torch.allclose(one, two, atol=1e-12)
    one.sin().sum().backward()
    two.sin().sum().backward()
    for a, b in zip(plain.parameters(), cut.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-12)


def test_it_cannot_be_compiled_and_says_why():
    with pytest.raises(ConfigError, match=r"model\.backend: compiled(.|\n)*a step of its own"):
        model("lstm", backend="compiled")


@pytest.mark.parametrize("option", ["slots", "width", "hops", "patience"])
def test_impossible_sizes_are_refused(option):
    with pytest.raises(ConfigError, match=rf"memory\.{option}: 0 is not allowed"):
        make(**{option: 0})


def test_impossible_noise_is_refused():
    with pytest.raises(ConfigError, match=r"memory\.linear_start: -1 is not allowed"):
        make(linear_start=-1)
    with pytest.raises(ConfigError, match=r"memory\.noise: 1\.0 is not allowed"):
        make(noise=1.0)


def test_a_trace_shows_what_each_hop_reads_and_where_each_step_writes():
    memory = registry.build("memory", "memory_network", slots=4, width=3, hops=2)
    interface = torch.randn(2, 6, memory.interface_size)
    _, state = memory.sequence(interface[:, :2], memory.init_state(2))
    shown = memory.trace_sequence(interface[:, 2:], state)
    assert shown["read weights"].shape == (2, 4, 2, 6)
    torch.testing.assert_close(shown["read weights"].sum(-1), torch.ones(2, 4, 2))
    # The step at place 3 sees those at 0 to 2; the last, at 5, no more than four: 1 to 4.
    assert (shown["read weights"][:, 1, :, 3:] == 0).all()
    assert (shown["read weights"][:, 3, :, [0, 5]] == 0).all()
    assert shown["write weights"][0, :, 0].argmax(-1).tolist() == [2, 3, 4, 5]
