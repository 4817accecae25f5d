"""The Sparse Differentiable Neural Computer: held to its definition, and its links to the order of writes."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mannlab.errors import ConfigError
from mannlab.kernels.sdnc import naive
from mannlab.memory.sparse_dnc import SparseDNC


def make(**options) -> SparseDNC:
    torch.manual_seed(options.pop("seed", 0))
    return SparseDNC(**{"slots": 8, "width": 3, "heads": 2, "sparsity": 2, "links": 3, **options}).double()


def stream(memory: SparseDNC, batch: int, steps: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, memory.interface_size, dtype=torch.float64, generator=generator)
    return (2 * x).requires_grad_()


def assert_clean(memory: SparseDNC) -> None:
    gc.collect()
    buffers = [pair for free in memory._pool._free.values() for pair in free]
    assert buffers
    initial = 0 if memory.first_memory is None else memory.first_memory.detach().numpy()
    for cells, gradient in buffers:
        assert (cells.memory == initial).all()
        for name in ("after", "before", "next_rows", "next_links", "prev_rows", "prev_links"):
            assert not getattr(cells, name).any(), name
        assert not cells.last_rows.any()
        assert not cells.last_links.any()
        assert gradient is None or not gradient.any()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    slots=st.integers(1, 10),
    sparsity=st.integers(1, 4),
    links=st.integers(1, 5),
    steps=st.integers(1, 40),
    init=st.sampled_from(["zero", "learned", "random"]),
    padded=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_parity_with_the_definition(batch, heads, slots, sparsity, links, steps, init, padded, seed):
    heads, sparsity = min(heads, slots), min(sparsity, slots)
    memory = make(slots=slots, heads=heads, sparsity=sparsity, links=links, init=init, seed=seed)
    x = stream(memory, batch, steps, seed)
    twin = x.detach().clone().requires_grad_()
    valid = None
    if padded:
        lengths = torch.randint(0, steps + 1, (batch,), generator=torch.Generator().manual_seed(seed))
        valid = (torch.arange(steps) < lengths[:, None]).double()
    reads, state = memory.sequence(x, memory.init_state(batch), valid)
    rows = memory.rows(state)

    first = torch.zeros(slots, 3, dtype=torch.float64) if init == "zero" else memory.first_memory
    initial = first.detach().clone().requires_grad_()
    other, wanted = naive.start(initial.expand(batch, -1, -1), heads), []
    for t in range(steps):
        read, other = naive.step(twin[:, t], other, memory.layout, None if valid is None else valid[:, t])
        wanted.append(read)
    wanted = torch.stack(wanted, 1)
    torch.testing.assert_close(reads, wanted, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(rows, other.memory, rtol=1e-9, atol=1e-11)

    weight = torch.randn(reads.shape, dtype=reads.dtype, generator=torch.Generator().manual_seed(seed))
    del state
    (reads * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-7, atol=1e-9)
    if init == "learned":
        torch.testing.assert_close(memory.first_memory.grad, initial.grad, rtol=1e-7, atol=1e-9)
    del reads
    assert_clean(memory)


def writer(memory: SparseDNC, words: torch.Tensor) -> torch.Tensor:
    """An interface that writes each word to a fresh row, and reads by content."""
    steps, width = words.shape
    x = torch.zeros(1, steps, memory.interface_size, dtype=torch.float64)
    x[..., 0:3] = torch.tensor([-30.0, 30.0, -30.0])  # by content
    x[..., 3 : 3 + width] = words  # the key is the word itself,
    x[..., 3 + width] = 50  # sharply,
    x[..., 4 + width : 4 + 2 * width] = words.atanh()  # so the row just written is read
    x[..., -2], x[..., -1] = 30, -30
    return x


@pytest.mark.parametrize(("direction", "mode"), [("forward", 2), ("backward", 0)])
def test_links_walk_through_what_was_written(direction, mode):
    memory = make(slots=40, width=6, heads=1, sparsity=1, links=4)
    words = 0.9 * torch.nn.functional.normalize(
        torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    with torch.no_grad():
        _, state = memory.sequence(writer(memory, words), memory.init_state(1))
        # Find one word by content, writing nothing, then follow the links.
        start = 2 if direction == "forward" else 9
        look = writer(memory, words[start : start + 1])
        look[..., -2] = -30
        read, state = memory.step(look[:, 0], state)
        torch.testing.assert_close(read[0], words[start], rtol=1e-3, atol=1e-3)
        look[..., 0:3] = -30.0
        look[..., mode] = 30.0
        for n in range(1, 6):
            read, state = memory.step(look[:, 0], state)
            wanted = words[start + n if direction == "forward" else start - n]
            torch.testing.assert_close(read[0], wanted, rtol=1e-2, atol=1e-2)


def test_truncated_backpropagation_and_snapshots():
    memory = make()
    x = stream(memory, 2, 80)
    with torch.no_grad():
        whole, last = memory.sequence(x, memory.init_state(2))
    state, parts = memory.init_state(2), []
    for part in x.split(20, dim=1):
        kept = memory.snapshot(state)
        with torch.no_grad():
            again = memory.sequence(part, kept)[0]
        reads, state = memory.sequence(part, state)
        assert torch.equal(again, reads)
        reads.square().sum().backward()
        state = memory.detach(state)
        parts.append(reads.detach())
    assert torch.equal(torch.cat(parts, 1), whole)
    del state, last, reads, kept
    assert_clean(memory)


def test_cost_does_not_touch_what_is_not_used():
    memory = make(slots=100_000, heads=1)
    reads, state = memory.sequence(stream(memory, 1, 5), memory.init_state(1))
    live = state.handle.session.cells.live
    assert int(np.max(live)) <= 5 * (1 + 2) + 2
    reads.sum().backward()


def test_half_precision_is_refused():
    with pytest.raises(ConfigError, match=r"float16: it works in float32 and float64"):
        make().half().init_state(2)


@pytest.mark.parametrize(("options", "said"), [({"links": 0}, "links: 0"), ({"slots": 1}, "sparsity: 2")])
def test_impossible_sizes(options, said):
    with pytest.raises(ConfigError, match=said):
        make(**options)
