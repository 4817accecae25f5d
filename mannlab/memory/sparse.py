"""Sparse memory: Sparse Access Memory of Rae et al. 2016 (arXiv 1610.09027)."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts import Memory
from mannlab.errors import ConfigError, require
from mannlab.kernels.sam.function import start, step
from mannlab.kernels.sam.index import Index, make_index
from mannlab.kernels.sam.layout import Layout
from mannlab.kernels.sam.session import Engine, Handle, Indexing, Pool, Session
from mannlab.memory._engines import fallback_index, make_engine
from mannlab.registry import register

logger = logging.getLogger(__name__)


class SparseState(NamedTuple):
    """Attributes: ``weights[B, H, K]`` of the rows read last; ``handle``, the right to make the next step."""

    weights: Tensor
    handle: Handle


@register("memory", "sparse")
class SparseMemory(Memory[SparseState]):
    """Sparse Access Memory: reads and writes a few rows of very many (Rae et al. 2016).

    Every head reads the K rows that are most like its key (cosine), by a softmax over them alone, and
    writes to the rows that it read before and to the row that nobody has used for longest, which is
    erased first (section 3). A step costs as much with a thousand slots as with a million, and so does
    its backward pass, which undoes the writes in place (section 3.4).

    Args:
        slots: N, number of rows.
        width: W, length of a row.
        heads: H; each reads and writes.
        sparsity: K, rows that one head reads.
        index: how to find the K best rows: ``exact`` (compare all rows in use: only those can differ from
            the initial memory), ``faiss`` (inverted lists; CPU, needs the package), ``lsh``
            (locality-sensitive hashing, any device), or ``auto``: exact while at most 16,384 rows are
            in use, then faiss if it is there, else lsh.
        init: memory before the first step: ``zero``, ``learned`` (one row of parameters per slot) or
            ``random`` (fixed normal noise, drawn once and kept in checkpoints). With the last two every
            row counts as used, so an exact search compares all of them.
        engine: what does the work: ``numba`` (compiled for CPUs), ``torch`` (any device), or ``auto``, the
            fastest that works where the model is.

    Raises:
        ConfigError: a size below 1, more rows to read than slots, or more heads than slots.
    """

    first_memory: Tensor | None
    _like: Tensor

    def __init__(
        self,
        *,
        slots: int = 65536,
        width: int = 32,
        heads: int = 4,
        sparsity: int = 4,
        index: Literal["auto", "exact", "faiss", "lsh"] = "auto",
        init: Literal["zero", "learned", "random"] = "zero",
        engine: Literal["auto", "numba", "torch"] = "auto",
    ) -> None:
        super().__init__()
        for key, value in (("slots", slots), ("width", width), ("heads", heads), ("sparsity", sparsity)):
            require(value >= 1, f"memory.{key}: {value} is not allowed.", "It must be at least 1.")
        require(
            sparsity <= slots,
            f"memory.sparsity: {sparsity} is not allowed with memory.slots={slots}.",
            "A head can read at most every slot.",
        )
        require(
            heads <= slots,
            f"memory.heads: {heads} is not allowed with memory.slots={slots}.",
            "Each head recycles a slot of its own at every step.",
        )
        self.layout = Layout(slots, width, heads, sparsity)
        self.interface_size = self.layout.interface
        self.read_size = heads * width
        rows = None if init == "zero" else torch.randn(slots, width) * 0.1
        if init == "learned":
            assert rows is not None
            self.first_memory = nn.Parameter(rows)
        else:
            self.register_buffer("first_memory", rows, persistent=init == "random")
        # Follows the module's type and device, whatever else it holds.
        self.register_buffer("_like", torch.zeros(()), persistent=False)
        self._pool = Pool()
        self._wanted = engine
        self._indexing = Indexing(index, fallback_index(), self._make_index)
        if index == "faiss":
            require(
                fallback_index() == "faiss",
                "memory.index: faiss is not installed.",
                "Install it (pip install faiss-cpu), or use memory.index=auto, exact or lsh.",
            )
        self._warned = False
        self._engine: tuple[object, Engine] | None = None

    # ------------------------------------------------------------------ engines

    def _engine_for(self, like: Tensor) -> Engine:
        initial = self.first_memory
        version = None if initial is None else (initial.data_ptr(), initial._version)
        key = (like.dtype, like.device, version)
        if self._engine is None or self._engine[0] != key:
            self._pool.clear()
            self._engine = (key, make_engine(like, initial, self._wanted))
        return self._engine[1]

    def __getstate__(self) -> dict[str, object]:
        # An engine belongs to this process and this copy of the parameters.
        return {**self.__dict__, "_engine": None}

    def _make_index(self, name: str, layout: Layout, batch: int) -> Index:
        if name == "faiss" and self._like.device.type != "cpu":
            raise ConfigError(
                f"memory.index: faiss works on CPUs, and the model is on {self._like.device}.",
                "Use memory.index=auto, exact or lsh.",
            )
        return make_index(name, layout, batch, self._like)

    # ------------------------------------------------------------------ states

    def init_state(self, batch: int) -> SparseState:
        session = Session(
            self._engine_for(self._like),
            self.layout,
            batch,
            self._pool,
            keep_always=self.first_memory is not None,
            indexing=self._indexing,
        )
        weights = self._like.new_zeros(batch, self.layout.heads, self.layout.sparsity)
        return SparseState(start(session, self.first_memory, weights), session.new_handle())

    def forward(self, interface: Tensor, state: SparseState) -> tuple[Tensor, SparseState]:
        return self.step(interface, state)

    def step(
        self, interface: Tensor, state: SparseState, valid: Tensor | None = None
    ) -> tuple[Tensor, SparseState]:
        session = state.handle.use()
        reads, weights = step(session, interface.to(self._like.dtype), state.weights, valid)
        return reads, SparseState(weights, session.new_handle())

    def snapshot(self, state: SparseState) -> SparseState:
        """A copy on a buffer of its own. It is cut off from the graph."""
        return SparseState(state.weights.detach(), state.handle.use().fork().new_handle())

    def detach(self, state: SparseState) -> SparseState:
        """Commit the steps so far; call it after their backward pass."""
        session = state.handle.use()
        session.commit()
        return SparseState(state.weights.detach(), state.handle)

    # ------------------------------------------------------------------ looking inside

    def rows(self, state: SparseState) -> Tensor:
        """The memory's contents, ``[B, N, W]``: a copy, for tests and pictures."""
        return state.handle.use().contents()

    def metrics(self) -> dict[str, float]:
        """Recall of the approximate search since the last call, if there was one."""
        recall = self._indexing.recall.percent()
        if recall is None:
            return {}
        if recall < 80 and not self._warned:
            self._warned = True
            logger.warning(
                "memory.index found only %.0f %% of the rows that an exact search finds. "
                "Use memory.index=exact, or expect worse reads.",
                recall,
            )
        return {f"recall_at_{self.layout.sparsity}_percent": recall}

    def trace(self, state: SparseState) -> dict[str, Tensor]:
        return state.handle.use().traced()
