"""Sparse memory: Sparse Access Memory of Rae et al. 2016 (arXiv 1610.09027)."""

from __future__ import annotations

import logging
from typing import Literal

from torch import Tensor

from mannlab.errors import ConfigError, require
from mannlab.kernels.sam.index import Index, make_index
from mannlab.kernels.sam.layout import Layout
from mannlab.kernels.sam.session import Engine, Indexing
from mannlab.memory._engines import fallback_index, make_engine
from mannlab.memory._in_place import InPlaceMemory
from mannlab.registry import register

logger = logging.getLogger(__name__)


@register("memory", "sparse")
class SparseMemory(InPlaceMemory):
    """Sparse Access Memory: reads and writes a few rows of very many (Rae et al. 2016).

    Every head reads the K rows that are most like its key (cosine), by a softmax over them alone, and
    writes to the rows that it read before and to the row that nobody has used for longest, which is
    erased first (section 3). A step costs as much with a thousand slots as with a million, and so does
    its backward pass, which undoes the writes in place (section 3.4). Beyond the paper a key has a strength
    (softplus) that multiplies the cosine, as in the Neural Turing Machine, and the add vector passes through
    a tanh.

    Args:
        slots: N, number of rows.
        width: W, length of a row.
        heads: H; each reads and writes.
        sparsity: K, rows that one head reads.
        index: how to find the K best rows: ``exact`` (compare all rows in use: only those can differ from
            the initial memory), ``faiss`` (inverted lists; CPU, needs the package), ``lsh``
            (locality-sensitive hashing, any device), or ``auto``: exact while at most 16,384 rows are
            in use, then faiss if it is there and the model on a CPU, else lsh.
        init: memory before the first step: ``zero``, ``learned`` (one row of parameters per slot) or
            ``random`` (fixed normal noise, drawn once and kept in checkpoints). With the last two every
            row counts as used, so an exact search compares all of them.
        engine: what does the work: ``numba`` (compiled for CPUs), ``torch`` (any device), or ``auto``, the
            fastest that works where the model is.

    Raises:
        ConfigError: a size below 1, more rows to read than slots, or more heads than slots.
    """

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
        super().__init__(Layout(slots, width, heads, sparsity), init)
        self._wanted = engine
        self._indexing = Indexing(index, fallback_index(), self._make_index)
        if index == "faiss":
            require(
                fallback_index() == "faiss",
                "memory.index: faiss is not installed.",
                "Install it (pip install faiss-cpu), or use memory.index=auto, exact or lsh.",
            )
        self._warned = False

    def make_engine(self, like: Tensor, initial: Tensor | None) -> Engine:
        return make_engine(like, initial, self._wanted)

    def _make_index(self, name: str, layout: Layout, batch: int) -> Index:
        if name == "faiss" and self._like.device.type != "cpu":
            if self._indexing.name == "auto":
                return make_index("lsh", layout, batch, self._like)
            raise ConfigError(
                f"memory.index: faiss works on CPUs, and the model is on {self._like.device}.",
                "Use memory.index=auto, exact or lsh.",
            )
        return make_index(name, layout, batch, self._like)

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
