"""Sequences on a sparse memory: one buffer changed in place, a journal, and a backward pass that undoes it.

A :class:`Session` borrows a buffer from a :class:`Pool` for as long as somebody can still need it: the
holder of its latest :class:`Handle`, who can go on, or a graph that waits for its backward pass. Then the
buffer goes back, equal to the initial memory again, by work in proportion to the rows used.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mannlab.kernels.sam.index import LIVE_BEFORE_AUTO, Index, Recall
from mannlab.kernels.sam.layout import Cells, History, Layout

BLOCK = 32  # steps for which history is allocated at a time


class Last(NamedTuple):
    """What the step before read: ``rows[B, H, K]`` and their ``weights[B, H, K]``."""

    rows: Any
    weights: Any


class Search(NamedTuple):
    """An approximate search: what proposes rows, and how well it does."""

    source: Index
    recall: Recall


class Engine(Protocol):
    """What works on the arrays; ``s`` is a step's place in its block of history."""

    def starts_from(self, initial: Tensor) -> bool:
        """Whether ``initial[N, W]`` is still what the engine has a copy of."""

    def cells(self, batch: int, layout: Layout) -> Cells:
        """An unused memory: zeros everywhere."""

    def history(self, steps: int, batch: int, layout: Layout) -> History:
        """Room for so many steps."""

    def nothing(self, batch: int, layout: Layout) -> Last:
        """What was read before the first step: row 0 with weight 0."""

    def gradient(self, cells: Cells) -> Any:
        """Zeros, ``[B, N, W]``."""

    def forward(
        self,
        s: int,
        interface: Tensor,
        valid: Tensor | None,
        last: Last,
        cells: Cells,
        history: History,
        search: Search | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Make a step: reads ``[B, H * W]`` and their weights ``[B, H, K]``. No search: compare all rows."""

    def backward(
        self,
        s: int,
        last: Last,
        cells: Cells,
        gradient: Any,
        history: History,
        grad_reads: Tensor | None,
        grad_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Undo a step: gradients of its interface and of the weights of the read before."""

    def swap(self, s: int, last: Last, cells: Cells, history: History) -> None:
        """Undo a step without gradients, or redo one that was undone."""

    def forget(self, cells: Cells, gradient: Any | None, steps: int, blocks: list[History]) -> None:
        """Bring usage and gradient back after ``steps`` steps that were all undone."""

    def reset(self, cells: Cells, gradient: Any | None) -> None:
        """Bring everything back to the initial memory, wherever it stands."""

    def clear(self, cells: Cells, gradient: Any) -> None:
        """Zero the gradient in rows that were used."""

    def copy(self, source: Cells, target: Cells) -> None:
        """Make ``target``, an unused memory, equal to ``source``."""

    def initial_gradient(self, cells: Cells, gradient: Any) -> Tensor:
        """``[N, W]``, the sum of ``gradient`` over the batch."""


class Pool:
    """Buffers between uses, by batch size. Copies and pickles of a pool are empty pools."""

    def __init__(self) -> None:
        self._free: dict[Any, list[tuple[Cells, Any]]] = {}
        self.blocks: dict[Any, list[History]] = {}

    def take(self, key: Any, make: Callable[[], Cells]) -> tuple[Cells, Any]:
        """A buffer and its gradient (None until one was needed)."""
        free = self._free.get(key)
        return free.pop() if free else (make(), None)

    def give(self, key: Any, cells: Cells, gradient: Any) -> None:
        self._free.setdefault(key, []).append((cells, gradient))

    def clear(self) -> None:
        self._free.clear()
        self.blocks.clear()

    def __reduce__(self) -> tuple[type[Pool], tuple[()]]:
        return Pool, ()


class Indexing:
    """How sessions of one memory search.

    Args:
        name: ``exact``, ``faiss``, ``lsh``, or ``auto``: exact while few rows are in use, then ``fallback``.
        fallback: ``faiss`` or ``lsh``.
        make: makes an index, given its name, sizes and batch.

    Attributes:
        recall: of all sessions' indexes.
    """

    def __init__(
        self,
        name: str = "exact",
        fallback: str = "lsh",
        make: Callable[[str, Layout, int], Index] | None = None,
    ) -> None:
        self.name, self.fallback, self._make = name, fallback, make
        self.recall = Recall()

    def wanted(self, live: int) -> bool:
        """Whether an index should be there when so many rows are in use."""
        return self.name != "exact" and (self.name != "auto" or live > LIVE_BEFORE_AUTO)

    def make(self, layout: Layout, batch: int) -> Index:
        """An index for one session."""
        assert self._make is not None
        return self._make(self.fallback if self.name == "auto" else self.name, layout, batch)


class Handle:
    """The right to make the next step of a session. Good once."""

    def __init__(self, session: Session, time: int) -> None:
        self.session, self.time = session, time

    def use(self) -> Session:
        """The session, if this handle is its latest.

        Raises:
            RuntimeError: a later step was made.
        """
        if self.time != self.session.time:
            raise RuntimeError(
                "This state of a sparse memory was used already: a step changes the memory in place. "
                "Take a Memory.snapshot of a state that is needed again."
            )
        return self.session

    def __del__(self) -> None:
        self.session.handle_gone(self)


class Session:
    """A batch of sequences on one buffer.

    Args:
        engine: what does the work.
        layout: sizes.
        batch: B.
        pool: where buffers come from and go.
        keep_always: keep a journal even of steps that need no gradient (the initial memory is not
            zeros, so that only undoing can bring it back cheaply).
        hold_for_start: the initial memory wants its gradient: keep the buffer until it was asked for.
        indexing: how to search.

    Attributes:
        time: steps made.
        base: steps that can no longer be undone: made without a journal, or committed.
        position: the step after which the buffer stands; less than ``time`` once steps were undone.
    """

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        batch: int,
        pool: Pool,
        keep_always: bool = False,
        hold_for_start: bool = False,
        indexing: Indexing | None = None,
    ) -> None:
        self.indexing = indexing or Indexing()
        self.search: Search | None = None
        self.engine, self.layout, self.batch, self.pool = engine, layout, batch, pool
        self.keep_always, self.hold_for_start = keep_always, hold_for_start
        self.key = (engine, layout, batch)
        self.cells: Cells | None
        self.cells, self.gradient = pool.take(self.key, lambda: engine.cells(batch, layout))
        self.dirty = False  # the gradient buffer holds something
        self.backward_pass: int | None = None  # of what it holds
        self.time = self.base = self.position = 0
        self.first = engine.nothing(batch, layout)
        self.blocks: list[History] = []
        self.handle: weakref.ref[Handle] | None = None
        self.done = False  # the backward pass has reached the base
        self.latest: tuple[History, int, Last] | None = None

    # ------------------------------------------------------------------ forward

    def _choose_search(self, cells: Cells) -> None:
        """Build an index, if one is wanted by now."""
        kind = self.indexing
        if self.search is None and kind.wanted(int(max(cells.live))):
            index = kind.make(self.layout, self.batch)
            index.build(cells)
            self.search = Search(index, kind.recall)

    def new_handle(self) -> Handle:
        handle = Handle(self, self.time)
        self.handle = weakref.ref(handle)
        return handle

    def forward(self, interface: Tensor, valid: Tensor | None, keep: bool) -> tuple[Tensor, Tensor]:
        """The next step; with ``keep`` it can be undone."""
        cells = self._ready()
        if self.position < self.time:
            self._go_to(self.time)
        if self.search is None and self.indexing.name != "exact":
            self._choose_search(cells)
        if not (keep or self.keep_always) and self.time == self.base:
            return self._forward_without_journal(interface, valid, cells)
        if self.time == self.base and self.blocks:
            # Steps without a journal stand in the block that is filled from here on.
            self.first = Last(self.first.rows + 0, self.first.weights + 0)
        n, s = divmod(self.time - self.base, BLOCK)
        if n == len(self.blocks):
            self.blocks.append(self._new_block())
        last = self._last(self.time)
        out = self.engine.forward(s, interface, valid, last, cells, self.blocks[n], self.search)
        self.latest = (self.blocks[n], s, last)
        self.time += 1
        self.position += 1
        self.done = False
        return out

    def _forward_without_journal(
        self, interface: Tensor, valid: Tensor | None, cells: Cells
    ) -> tuple[Tensor, Tensor]:
        # Two places in turn: the present step needs what the last one read, and nothing older.
        if not self.blocks:
            self.blocks.append(self._new_block())
        s = self.time % 2
        out = self.engine.forward(s, interface, valid, self.first, cells, self.blocks[0], self.search)
        history = self.blocks[0]
        self.latest = (history, s, self.first)
        self.first = Last(history.rows[s], history.weights[s])
        self.time += 1
        self.base = self.position = self.time
        return out

    def _new_block(self) -> History:
        free = self.pool.blocks.get(self.key)
        return free.pop() if free else self.engine.history(BLOCK, self.batch, self.layout)

    def _last(self, time: int) -> Last:
        """What the step before step ``time`` read."""
        if time == self.base:
            return self.first
        n, s = divmod(time - 1 - self.base, BLOCK)
        return Last(self.blocks[n].rows[s], self.blocks[n].weights[s])

    def _ready(self) -> Cells:
        if self.cells is None:
            raise RuntimeError(
                "This pass over a sparse memory is over: its backward pass has undone it. "
                "Run the forward pass again, or keep the state alive to go on from it."
            )
        return self.cells

    # ------------------------------------------------------------------ undo and redo

    def _go_to(self, time: int) -> None:
        """Undo or redo steps until the buffer is as it was after ``time`` steps."""
        cells = self._ready()
        while self.position > time:
            self.position -= 1
            self._swap(self.position, cells)
        while self.position < time:
            self._swap(self.position, cells)
            self.position += 1

    def _swap(self, time: int, cells: Cells) -> None:
        n, s = divmod(time - self.base, BLOCK)
        self.engine.swap(s, self._last(time), cells, self.blocks[n])

    def backward(
        self, time: int, grad_reads: Tensor | None, grad_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Gradients of step ``time``, which is undone; later steps, if any, are undone first."""
        cells = self._ready()
        if time < self.base:
            raise RuntimeError(
                "A sparse memory's state was detached before the backward pass of the steps that led to it. "
                "Call backward first, then Memory.detach."
            )
        if self.gradient is None:
            self.gradient = self.engine.gradient(cells)
        # One pass may begin right where another ended.
        current = torch._C._current_graph_task_id()
        if self.dirty and (current != self.backward_pass or self.position != time + 1):
            self.engine.clear(cells, self.gradient)
        self._go_to(time + 1)
        self.dirty, self.backward_pass = True, current
        n, s = divmod(time - self.base, BLOCK)
        out = self.engine.backward(
            s, self._last(time), cells, self.gradient, self.blocks[n], grad_reads, grad_weights
        )
        self.position = time
        if time == self.base:
            self.done = True
            if not self.hold_for_start:
                self._release_if_unneeded()
        return out

    def initial_gradient(self) -> Tensor:
        """Gradient of the initial memory ``[N, W]``, after the backward pass; zero but in rows used."""
        found = self.engine.initial_gradient(self._ready(), self.gradient)
        self.hold_for_start = False
        self._release_if_unneeded()
        return found

    # ------------------------------------------------------------------ looking inside

    def contents(self, slots: Tensor | None = None) -> Tensor:
        """The memory ``[B, N, W]`` after the last step, copied; or ``slots`` (``int64[S]``) of it alone."""
        self._go_to(self.time)
        memory = torch.as_tensor(self._ready().memory)
        return memory.clone() if slots is None else memory[:, slots.to(memory.device)]

    def traced(self) -> dict[str, Tensor]:
        """Weights of the last step's reads and writes, each ``[B, H, N]``; nothing before the first step."""
        shape = (self.batch, self.layout.heads, self.layout.slots)
        return {
            title: weights.new_zeros(shape).scatter_add_(2, rows, weights)
            for title, (rows, weights) in self.looked().items()
        }

    def looked(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Rows of the last step's reads and writes and their weights; nothing before the first step.

        Each ``[B, H, D]``, and one more for writes; a row may stand twice, and then has both weights.
        """
        if self.latest is None:
            return {}
        history, s, last = self.latest
        rows, weights = torch.as_tensor(history.rows[s]), torch.as_tensor(history.weights[s])
        recycled = torch.as_tensor(history.recycled[s]).unsqueeze(-1)
        heads = self.layout.heads
        gate, old = torch.as_tensor(history.said[s])[:, -2 * heads :, None].split(heads, dim=1)
        real = recycled >= 0
        before, of_before = torch.as_tensor(last.rows), torch.as_tensor(last.weights)
        writing = torch.cat([of_before * gate * old, gate * (1 - old)], dim=2) * real
        written = torch.cat([before, recycled.clamp(min=0)], dim=2)
        return {"read weights": (rows, weights * real), "write weights": (written, writing)}

    # ------------------------------------------------------------------ commit, copy, release

    def commit(self) -> None:
        """Make all steps so far final: they can no longer be undone."""
        self._go_to(self.time)
        last = self._last(self.time)
        self.first = Last(last.rows + 0, last.weights + 0)
        self._drop_blocks()
        if self.dirty:
            self.engine.clear(self._ready(), self.gradient)
            self.dirty = False
        self.base = self.position = self.time

    def fork(self) -> Session:
        """Another session that stands where this one stands, on a buffer of its own."""
        self._go_to(self.time)
        other = Session(
            self.engine, self.layout, self.batch, self.pool, self.keep_always, indexing=self.indexing
        )
        self.engine.copy(self._ready(), other._ready())
        last = self._last(self.time)
        other.first = Last(last.rows + 0, last.weights + 0)
        other.time = other.base = other.position = self.time
        return other

    def handle_gone(self, handle: Handle) -> None:
        """Called when a handle dies."""
        if self.handle is not None and self.handle() is handle:
            self.handle = None
            if self.done:
                self._release_if_unneeded()

    def _release_if_unneeded(self) -> None:
        if self.handle is None and not self.hold_for_start:
            self.release()

    def release(self) -> None:
        """Give the buffer back, as it was before the first step."""
        if self.cells is None:
            return
        cells, self.cells = self.cells, None
        gradient = self.gradient if self.dirty else None
        if self.base == 0 and (self.position == 0 or self.keep_always):
            while self.position > 0:
                self.position -= 1
                self._swap(self.position, cells)
            self.engine.forget(cells, gradient, self.time, self.blocks)
        else:
            self.engine.reset(cells, gradient)
        self.pool.give(self.key, cells, self.gradient)
        self.gradient = None
        self._drop_blocks()

    def _drop_blocks(self) -> None:
        self.pool.blocks.setdefault(self.key, []).extend(self.blocks)
        self.blocks = []
        self.latest = None

    def __del__(self) -> None:
        # Whatever is left when Python ends needs no tidying up.
        if getattr(self, "cells", None) is not None and not sys.is_finalizing():
            self.release()
