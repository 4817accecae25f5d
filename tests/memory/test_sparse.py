"""Sparse Access Memory: held to its definition, and to leaving no trace."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mannlab.errors import ConfigError
from mannlab.kernels.sam import naive
from mannlab.memory.sparse import SparseMemory
from mannlab.registry import build

ENGINES = ("numba", "torch")


def make(**options) -> SparseMemory:
    torch.manual_seed(options.pop("seed", 0))
    return SparseMemory(**{"slots": 8, "width": 3, "heads": 2, "sparsity": 3, **options}).double()


def stream(memory: SparseMemory, batch: int, steps: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, memory.interface_size, dtype=torch.float64, generator=generator)
    return (2 * x).requires_grad_()


def by_definition(memory: SparseMemory, x: torch.Tensor, valid=None):
    """Reads and last rows by the naive definition, and the initial memory they depend on."""
    slots, width, heads, _ = memory.layout
    first = torch.zeros(slots, width, dtype=x.dtype) if memory.first_memory is None else memory.first_memory
    initial = first.detach().clone().requires_grad_()
    state = naive.start(initial.expand(len(x), -1, -1), heads)
    reads = []
    for t in range(x.shape[1]):
        read, state = naive.step(x[:, t], state, memory.layout, None if valid is None else valid[:, t])
        reads.append(read)
    return torch.stack(reads, 1), state.memory, initial


def assert_clean(memory: SparseMemory) -> None:
    """Every buffer is in the pool, and is what it was before the first step, bit for bit."""
    gc.collect()
    initial = 0 if memory.first_memory is None else memory.first_memory.detach()
    buffers = [pair for free in memory._pool._free.values() for pair in free]
    assert buffers
    for cells, gradient in buffers:
        rows = torch.as_tensor(cells.memory)
        assert bool((rows == initial).all())
        for links in (cells.after, cells.before):
            assert bool((torch.as_tensor(links) == 0).all())
        start = 0 if memory.first_memory is None else memory.layout.slots
        assert torch.as_tensor(cells.live).tolist() == [start] * len(rows)
        assert gradient is None or bool((torch.as_tensor(gradient) == 0).all())


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    slots=st.integers(1, 12),
    sparsity=st.integers(1, 6),
    width=st.integers(1, 5),
    steps=st.integers(1, 30),
    init=st.sampled_from(["zero", "learned", "random"]),
    padded=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_parity_with_the_definition(engine, batch, heads, slots, sparsity, width, steps, init, padded, seed):
    heads, sparsity = min(heads, slots), min(sparsity, slots)
    options = {"slots": slots, "width": width, "heads": heads, "sparsity": sparsity, "init": init}
    memory = make(engine=engine, seed=seed, **options)
    x = stream(memory, batch, steps, seed)
    twin = x.detach().clone().requires_grad_()
    valid = None
    if padded:
        lengths = torch.randint(0, steps + 1, (batch,), generator=torch.Generator().manual_seed(seed))
        valid = (torch.arange(steps) < lengths[:, None]).double()
    reads, state = memory.sequence(x, memory.init_state(batch), valid)
    rows = memory.rows(state)
    wanted, wanted_rows, initial = by_definition(memory, twin, valid)
    torch.testing.assert_close(reads, wanted, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(rows, wanted_rows, rtol=1e-9, atol=1e-11)

    weight = torch.randn(reads.shape, dtype=reads.dtype, generator=torch.Generator().manual_seed(seed))
    del state
    (reads * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-7, atol=1e-9)
    if init == "learned":
        torch.testing.assert_close(memory.first_memory.grad, initial.grad, rtol=1e-7, atol=1e-9)
    del reads
    assert_clean(memory)


@pytest.mark.parametrize("engine", ENGINES)
class TestBuffers:
    def test_loss_of_an_early_step_only(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 40)
        twin = x.detach().clone().requires_grad_()
        reads = memory.sequence(x, memory.init_state(2))[0]
        reads[:, 3].sum().backward()
        by_definition(memory, twin)[0][:, 3].sum().backward()
        torch.testing.assert_close(x.grad, twin.grad)
        del reads
        assert_clean(memory)

    def test_a_forward_pass_without_backward_leaves_nothing(self, engine):
        memory = make(engine=engine)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                memory.sequence(stream(memory, 2, 9), memory.init_state(2))
            assert_clean(memory)

    def test_an_exception_within_a_sequence_leaves_nothing(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 9)

        def fail() -> None:
            _, state = memory.step(x[:, 0], memory.init_state(2))
            _, state = memory.step(x[:, 1], state)
            raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011
            fail()
        assert_clean(memory)

    def test_buffers_are_used_again(self, engine):
        memory = make(engine=engine)
        for _ in range(3):
            reads = memory.sequence(stream(memory, 2, 50), memory.init_state(2))[0]
            reads.sum().backward()
            del reads
        assert [len(free) for free in memory._pool._free.values()] == [1]

    def test_without_gradients_it_reads_the_same(self, engine):
        memory = make(engine=engine, init="random")
        x = stream(memory, 2, 40)
        with_grad = memory.sequence(x, memory.init_state(2))[0]
        with torch.no_grad():
            without = memory.sequence(x, memory.init_state(2))[0]
        assert torch.equal(with_grad, without)

    def test_gradients_may_begin_within_a_sequence(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 9)
        whole = memory.sequence(x, memory.init_state(2))[0]
        with torch.no_grad():
            _, state = memory.sequence(x[:, :5], memory.init_state(2))
        rest, state = memory.sequence(x[:, 5:], state)
        assert torch.equal(rest, whole[:, 5:])
        rest.sum().backward()
        assert bool((x.grad[:, :5] == 0).all())
        del rest, whole, state
        assert_clean(memory)

    def test_two_passes_may_wait_for_their_backward(self, engine):
        memory = make(engine=engine)
        x, y = stream(memory, 2, 9, seed=1), stream(memory, 2, 9, seed=2)
        alone = []
        for z in (x, y):
            memory.sequence(z, memory.init_state(2))[0].square().sum().backward()
            alone.append(z.grad)
            z.grad = None
        one = memory.sequence(x, memory.init_state(2))[0]
        other = memory.sequence(y, memory.init_state(2))[0]
        (one.square().sum() + other.square().sum()).backward()
        assert torch.equal(x.grad, alone[0])
        assert torch.equal(y.grad, alone[1])
        del one, other
        assert_clean(memory)

    @pytest.mark.parametrize("init", ["zero", "random"])
    def test_truncated_backpropagation_commits(self, engine, init):
        memory = make(engine=engine, init=init)
        x = stream(memory, 2, 80)
        with torch.no_grad():
            whole, last = memory.sequence(x, memory.init_state(2))
            rows = memory.rows(last)
        state, parts = memory.init_state(2), []
        for part in x.split(20, dim=1):
            reads, state = memory.sequence(part, state)
            reads.square().sum().backward()
            state = memory.detach(state)
            parts.append(reads.detach())
        assert torch.equal(torch.cat(parts, 1), whole)
        assert torch.equal(memory.rows(state), rows)
        del state, last, reads
        assert_clean(memory)

    def test_gradients_of_a_later_part_are_those_of_a_detached_state(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 12)
        reads, state = memory.sequence(x[:, :6], memory.init_state(2))
        reads.sum().backward()
        x.grad = None
        reads, state = memory.sequence(x[:, 6:], memory.detach(state))
        reads.square().sum().backward()
        twin = x.detach().clone().requires_grad_()
        start = naive.start(torch.zeros(2, 8, 3, dtype=torch.float64), 2)
        with torch.no_grad():
            for t in range(6):
                _, start = naive.step(twin[:, t], start, memory.layout)
        wanted = 0
        for t in range(6, 12):
            read, start = naive.step(twin[:, t], start, memory.layout)
            wanted = wanted + read.square().sum()
        wanted.backward()
        torch.testing.assert_close(x.grad, twin.grad)

    def test_a_second_backward_pass_gives_the_same(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 9)
        reads, state = memory.sequence(x, memory.init_state(2))
        first = torch.autograd.grad(reads.square().sum(), x, retain_graph=True)
        second = torch.autograd.grad(reads.square().sum(), x)
        assert torch.equal(first[0], second[0])
        del state

    def test_a_pass_that_begins_where_another_ended(self, engine):
        memory = make(engine=engine)
        xs = [x.detach().requires_grad_() for x in stream(memory, 2, 8).unbind(1)]
        state, reads = memory.init_state(2), []
        for x in xs:
            read, state = memory.step(x, state)
            reads.append(read)
        for t in reversed(range(8)):
            (found,) = torch.autograd.grad(reads[t].sum(), xs[t], retain_graph=True)
            wanted = by_definition(memory, torch.stack(xs, 1))[0][:, t]
            torch.testing.assert_close(found, torch.autograd.grad(wanted.sum(), xs[t])[0])

    def test_going_on_with_a_graph_after_its_backward_pass(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 8)
        first, state = memory.sequence(x[:, :4], memory.init_state(2))
        first.square().sum().backward(retain_graph=True)
        x.grad = None
        rest, state = memory.sequence(x[:, 4:], state)
        rest.square().sum().backward()
        twin = x.detach().clone().requires_grad_()
        by_definition(memory, twin)[0][:, 4:].square().sum().backward()
        torch.testing.assert_close(x.grad, twin.grad)

    @pytest.mark.parametrize("index", ["exact", "lsh"])
    def test_buffers_of_an_evaluation_serve_training(self, engine, index):
        memory = make(engine=engine, index=index)
        x = stream(memory, 2, 9)
        with torch.inference_mode():
            _, state = memory.sequence(x, memory.init_state(2))
        memory.sequence(x, state)  # goes on outside
        del state
        assert_clean(memory)
        twin = x.detach().clone().requires_grad_()
        reads = memory.sequence(x, memory.init_state(2))[0]
        total = reads.sum()
        with torch.inference_mode():
            total.backward()
        memory.sequence(twin, memory.init_state(2))[0].sum().backward()
        assert torch.equal(x.grad, twin.grad)
        del reads
        assert_clean(memory)

    def test_rows_asked_for_from_another_device(self, engine):
        """As of a model on a GPU whose memory is on the CPU."""

        class There:
            def to(self, device):
                assert device == torch.device("cpu")
                return torch.tensor([5, 2])

        memory = make(engine=engine)
        _, state = memory.sequence(stream(memory, 2, 5), memory.init_state(2))
        assert torch.equal(memory.rows(state, There()), memory.rows(state)[:, [5, 2]])

    def test_a_graph_that_was_undone_says_so(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 9)
        reads = memory.sequence(x, memory.init_state(2))[0]
        reads.sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="is over"):
            reads.sum().backward()

    def test_a_state_is_used_once(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 3)
        state = memory.init_state(2)
        memory.step(x[:, 0], state)
        with pytest.raises(RuntimeError, match="snapshot"):
            memory.step(x[:, 1], state)

    def test_going_on_after_backward(self, engine):
        memory = make(engine=engine)
        x = stream(memory, 2, 9)
        whole = memory.sequence(x, memory.init_state(2))[0]
        reads, state = memory.sequence(x[:, :5], memory.init_state(2))
        reads.sum().backward()
        rest = memory.sequence(x[:, 5:].detach(), memory.detach(state))[0]
        assert torch.equal(rest, whole[:, 5:])

    def test_detach_before_backward_says_what_to_do(self, engine):
        memory = make(engine=engine)
        reads, state = memory.sequence(stream(memory, 2, 3), memory.init_state(2))
        memory.detach(state)
        with pytest.raises(RuntimeError, match="Call backward first"):
            reads.sum().backward()

    def test_copies_and_pickles_share_no_buffer(self, engine):
        memory = make(engine=engine, init="learned")
        x = stream(memory, 2, 5)
        wanted = memory.sequence(x, memory.init_state(2))[0]
        for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
            assert other._pool is not memory._pool
            found, _ = other.sequence(x, other.init_state(2))
            assert torch.equal(found, wanted)

    def test_a_learned_memory_is_read_as_the_optimizer_leaves_it(self, engine):
        memory = make(engine=engine, init="learned")
        x = stream(memory, 2, 5)
        for _ in range(3):
            reads = memory.sequence(x, memory.init_state(2))[0]
            wanted = by_definition(memory, x.detach())[0]
            torch.testing.assert_close(reads, wanted)
            memory.zero_grad()
            reads.square().sum().backward()
            with torch.no_grad():
                memory.first_memory -= 0.5 * memory.first_memory.grad
            del reads

    def test_a_learned_memory_learns_by_a_fused_optimizer(self, engine):
        """Which changes values without a trace in the parameter's version."""
        memory = make(engine=engine, init="learned")
        optimizer = torch.optim.Adam(memory.parameters(), lr=0.1, fused=True)
        x = stream(memory, 2, 5).detach()
        for _ in range(3):
            reads = memory.sequence(x, memory.init_state(2))[0]
            torch.testing.assert_close(reads, by_definition(memory, x)[0])
            optimizer.zero_grad()
            reads.square().sum().backward()
            optimizer.step()

    @pytest.mark.parametrize("init", ["learned", "random"])
    def test_a_memory_whose_data_is_replaced_is_read_as_it_is_now(self, engine, init):
        memory = make(engine=engine, init=init)
        x = stream(memory, 2, 5).detach()
        memory.sequence(x, memory.init_state(2))
        memory.first_memory.data.copy_(torch.randn(8, 3, dtype=torch.float64))
        found = memory.sequence(x, memory.init_state(2))[0]
        torch.testing.assert_close(found, by_definition(memory, x)[0])

    def test_only_touched_rows_get_gradients(self, engine):
        memory = make(engine=engine, init="learned", slots=50)
        reads, state = memory.sequence(stream(memory, 1, 2), memory.init_state(1))
        shown = memory.trace(state)
        touched = memory.rows(state)[0].ne(memory.first_memory).any(1) | shown["read weights"][0].gt(0).any(0)
        del state
        reads.square().sum().backward()
        got = memory.first_memory.grad.ne(0).any(1)
        assert got.any()
        assert got.sum() <= 2 * 2 * 3
        assert not bool((got & ~touched).sum() > 2 * 3)


def test_recycled_rows_are_those_unused_for_longest():
    """With the write gate open and nothing old, T > N writes go round the memory."""
    memory = make(slots=5, heads=1, sparsity=1)
    x = torch.zeros(1, 12, memory.interface_size, dtype=torch.float64)
    x[..., -2], x[..., -1] = 40, -40
    x[..., 4:7] = torch.randn(1, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state, written = memory.init_state(1), []
    for t in range(12):
        _, state = memory.step(x[:, t], state)
        written.append(int(memory.trace(state)["write weights"][0, 0].argmax()))
    assert set(written[:4]) >= {0, 1, 2}
    for t in range(12 - 1):
        assert written[t] != written[t + 1]


def test_half_precision_controllers_keep_a_float32_memory():
    memory = SparseMemory(slots=16, width=4, heads=1)
    state = memory.init_state(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said = torch.nn.Linear(3, memory.interface_size)(torch.randn(2, 3))
        assert said.dtype == torch.bfloat16
        reads, state = memory.step(said, state)
    assert reads.dtype == torch.float32
    reads.sum().backward()


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_a_memory_in_half_precision(dtype, close):
    memory = make(engine="auto").to(dtype)
    x = torch.randn(2, 3, memory.interface_size).to(dtype).requires_grad_()
    twin = x.detach().double().requires_grad_()
    reads = memory.sequence(x, memory.init_state(2))[0]
    wanted = by_definition(memory, twin)[0]
    assert reads.dtype == dtype
    torch.testing.assert_close(reads.double(), wanted, rtol=0, atol=close)
    for each in (reads, wanted):
        each.sum().backward()
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=0, atol=5 * close)


def test_compiled_code_in_half_precision_is_refused():
    memory = make(engine="numba").to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"memory\.engine: numba cannot be used: .* float32 and float64"):
        memory.init_state(2)


def test_trace_shows_weights():
    memory = make()
    _, state = memory.sequence(stream(memory, 2, 5), memory.init_state(2))
    shown = memory.trace(state)
    assert shown["read weights"].shape == (2, 2, 8)
    torch.testing.assert_close(shown["read weights"].sum(-1), torch.ones(2, 2, dtype=torch.float64))
    assert bool((shown["write weights"].sum(-1) <= 1 + 1e-9).all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slots": 0}, "memory.slots: 0"),
        ({"slots": 3, "sparsity": 4}, "memory.sparsity: 4"),
        ({"slots": 2, "sparsity": 1, "heads": 3}, "memory.heads: 3"),
        ({"width": 0}, "memory.width: 0"),
    ],
)
def test_impossible_sizes(options, said):
    with pytest.raises(ConfigError, match=said):
        SparseMemory(**options)


def test_index_names_are_checked():
    with pytest.raises(ConfigError, match=r"memory\.index"):
        build("memory", "sparse", index="flann")


def test_the_first_compilation_is_announced(caplog, monkeypatch, tmp_path):
    from types import SimpleNamespace

    from mannlab.kernels.sam.numba_engine import NumbaEngine

    function = SimpleNamespace(
        stats=SimpleNamespace(cache_path=str(tmp_path)),
        signatures=[],
        __module__="a.compiled",
        __name__="step",
    )
    monkeypatch.setattr(NumbaEngine, "step_function", function)
    with caplog.at_level("INFO"):
        NumbaEngine(torch.float32)
        assert "Compiling" in caplog.text
        caplog.clear()
        (tmp_path / "compiled.step-190.py311.nbi").touch()
        NumbaEngine(torch.float32)
        assert not caplog.text


@pytest.mark.parametrize("index", ["exact", "lsh"])
def test_no_step_waits_for_the_device(index):
    """On the meta device tensors have no values: whoever asked for one would fail."""
    memory = SparseMemory(slots=64, width=4, heads=2, engine="torch", index=index).to("meta")
    x = torch.zeros(3, 40, memory.interface_size, device="meta", requires_grad=True)
    valid = torch.ones(3, 40, device="meta")
    reads = memory.sequence(x, memory.init_state(3), valid)[0]
    assert reads.shape == (3, 40, 8)
    reads.sum().backward()
    assert x.grad.shape == x.shape
    state = memory.init_state(3)
    for part in x.split(20, dim=1):
        reads, state = memory.sequence(part, state)
        reads.sum().backward()
        state = memory.detach(memory.snapshot(state))


def test_auto_hashes_where_faiss_cannot_run(monkeypatch):
    from mannlab.kernels.sam.index import LSH
    from mannlab.memory import sparse

    monkeypatch.setattr(sparse, "fallback_index", lambda: "faiss")
    memory = SparseMemory(slots=64, width=4)
    memory._like = torch.zeros((), device="meta")
    made = []
    monkeypatch.setattr(sparse, "make_index", lambda name, *rest: made.append(name) or LSH)
    memory._indexing.make(memory.layout, 1)
    assert made == ["lsh"]
    memory._indexing.name = "faiss"
    with pytest.raises(ConfigError, match=r"memory\.index: faiss works on CPUs"):
        memory._indexing.make(memory.layout, 1)
