"""Searches that do not compare every row."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from mannlab.kernels.sam import index as indices
from mannlab.kernels.sam.index import LSH, Faiss, Recall, make_index
from mannlab.kernels.sam.layout import Layout
from mannlab.memory.sparse import SparseMemory

ENGINES = ("numba", "torch")


class Everything:
    """Proposes all rows, in disorder, and some of them twice."""

    def build(self, cells):
        pass

    def update(self, cells, changed):
        pass

    def query(self, keys, cells):
        rows = np.random.default_rng(0).permutation(int(np.max(cells.live)))
        rows = torch.tensor([*rows, *rows[:3], -1])
        return rows.expand(*keys.shape[:2], -1)


def run(memory: SparseMemory, steps: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    like = memory._like
    x = torch.randn(batch, steps, memory.interface_size, generator=generator).to(like) * 2
    with torch.no_grad():
        return memory.sequence(x, memory.init_state(batch))[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("init", ["zero", "random"])
def test_candidates_that_are_all_rows_give_the_exact_search(engine, init):
    options = {"slots": 11, "width": 3, "heads": 2, "sparsity": 3, "engine": engine, "init": init}
    torch.manual_seed(0)
    exact = SparseMemory(index="exact", **options).double()
    torch.manual_seed(0)
    other = SparseMemory(index="lsh", **options).double()
    other._indexing._make = lambda *_: Everything()
    torch.testing.assert_close(run(other, 30), run(exact, 30), rtol=1e-12, atol=1e-12)
    assert other.metrics()["recall_at_3_percent"] == 100


@pytest.mark.parametrize("name", ["faiss", "lsh"])
@pytest.mark.parametrize("engine", ENGINES)
def test_recall_of_rows_written_before(name, engine, monkeypatch):
    """A key near a stored row finds it among thousands."""
    if name == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(indices, "MEASURE_EVERY", 2)
    options = {"slots": 6000, "width": 16, "heads": 1, "sparsity": 1, "init": "random", "engine": engine}
    memory = SparseMemory(index=name, **options)
    steps, batch = 60, 2
    generator = torch.Generator().manual_seed(1)
    x = torch.zeros(batch, steps, memory.interface_size)
    wanted = torch.randint(0, 6000, (batch, steps), generator=generator)
    rows = memory.first_memory[wanted]
    x[..., :16] = rows + 0.02 * torch.randn(rows.shape, generator=generator)
    x[..., -2] = -30  # writes nothing
    with torch.no_grad():
        reads = memory.sequence(x, memory.init_state(batch))[0]
    hits = torch.isclose(reads, rows, atol=1e-3).all(-1).double().mean()
    assert hits > 0.85
    assert memory.metrics()["recall_at_1_percent"] > 85
    assert memory.metrics() == {}


@pytest.mark.parametrize("name", ["faiss", "lsh"])
def test_rows_that_changed_are_found_at_once(name):
    if name == "faiss":
        pytest.importorskip("faiss")
    memory = SparseMemory(slots=64, width=8, heads=1, sparsity=2, index=name)
    exact = SparseMemory(slots=64, width=8, heads=1, sparsity=2, index="exact")
    x = torch.zeros(1, 20, memory.interface_size)
    x[..., 9:17] = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(0))
    x[..., :8] = x[..., 9:17]  # the key is what is written
    x[..., -2], x[..., -1] = 30, -30
    with torch.no_grad():
        found = memory.sequence(x, memory.init_state(1))[0]
        wanted = exact.sequence(x, exact.init_state(1))[0]
    same = torch.isclose(found, wanted, atol=1e-4).all(-1).double().mean()
    assert same > 0.9


def test_gradients_pass_through_an_approximate_search():
    memory = SparseMemory(slots=64, width=8, heads=2, sparsity=2, index="lsh")
    x = torch.randn(2, 40, memory.interface_size, requires_grad=True)
    memory.sequence(x, memory.init_state(2))[0].square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_faiss_is_rebuilt_as_the_memory_grows():
    pytest.importorskip("faiss")
    memory = SparseMemory(slots=4096, width=4, heads=1, sparsity=2, index="faiss")
    made = []
    memory._indexing._make = lambda _, layout, batch: made.append(Faiss(layout, batch)) or made[0]
    run(memory, 1500, batch=1)
    assert made[0].rebuilds >= 1


def test_auto_compares_all_rows_until_they_are_many(monkeypatch):
    import mannlab.kernels.sam.session as sessions

    monkeypatch.setattr(sessions, "LIVE_BEFORE_AUTO", 40)
    memory = SparseMemory(slots=4096, width=4, heads=1, sparsity=2)
    asked = []

    def make(name, layout, batch):
        asked.append(name)
        return make_index("lsh", layout, batch, memory._like)

    memory._indexing._make = make
    run(memory, 20)
    assert not asked
    run(memory, 120)
    assert asked == [memory._indexing.fallback]


class Same:
    """Rows of which all have one bucket."""

    memory = np.ones((1, 64, 4), np.float32)
    live = np.array([5])


def same_bucket() -> LSH:
    return LSH(Layout(slots=64, width=4, heads=1, sparsity=1), 1, torch.zeros(()), tables=2, depth=3)


def test_full_buckets_drop_the_oldest():
    lsh = same_bucket()
    lsh.update(Same, torch.arange(5)[None])
    found = lsh.query(torch.ones(1, 1, 4), Same)
    assert set(found[found >= 0].tolist()) == {2, 3, 4}


def test_a_row_that_stands_in_a_bucket_drives_none_out():
    lsh = same_bucket()
    for rows in ([0], [1], [1], [1], [1, 2], [2]):
        lsh.update(Same, torch.tensor([rows]))
    found = lsh.query(torch.ones(1, 1, 4), Same)
    assert set(found[found >= 0].tolist()) == {0, 1, 2}


def test_bad_recall_is_said_once(caplog):
    memory = SparseMemory(slots=64, width=8, index="lsh")
    for _ in range(2):
        memory._indexing.recall.add(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
        with caplog.at_level(logging.WARNING):
            assert memory.metrics() == {"recall_at_4_percent": 0}
    assert caplog.text.count("memory.index found only 0 %") == 1


def test_equally_good_rows_count_as_found():
    recall = Recall()
    recall.add(torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[1.0, 0.5]]]))
    assert recall.percent() == 100
    assert recall.percent() is None
