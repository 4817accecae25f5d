"""Sparse memory with temporal links: the SDNC of Rae et al. 2016 (arXiv 1610.09027, appendix)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mannlab.errors import require
from mannlab.kernels.sam.session import Engine
from mannlab.kernels.sdnc.layout import Layout
from mannlab.memory._engines import COMPILED
from mannlab.memory._in_place import InPlaceMemory
from mannlab.registry import register


@register("memory", "sparse_dnc")
class SparseDNC(InPlaceMemory):
    """Sparse Differentiable Neural Computer: sparse memory that also remembers the order of its writes.

    Reads, writes and usage are those of ``sparse``; besides, each row keeps links to the rows written just
    after and just before it, and a head mixes, by its read modes, the K rows most like its key, the K best
    forward from what it read last, and the K best backward. There is no gradient through links.

    Args:
        slots: N, number of rows.
        width: W, length of a row.
        heads: H; each reads and writes.
        sparsity: K, rows that one head finds by content, and as many forward and backward.
        links: K_L, links kept per row and direction.
        init: memory before the first step: ``zero``, ``learned`` (one row of parameters per slot) or
            ``random`` (fixed normal noise, drawn once and kept in checkpoints).

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
        links: int = 8,
        init: Literal["zero", "learned", "random"] = "zero",
    ) -> None:
        super().__init__(Layout(slots, width, heads, sparsity, links), init)

    def make_engine(self, like: Tensor, initial: Tensor | None) -> Engine:
        from mannlab.kernels.sdnc.engine import make_engine

        require(
            like.dtype in COMPILED,
            f"memory: sparse_dnc cannot be used in {like.dtype}: it works in float32 and float64.",
            "Use trainer.precision=32-true or bf16-mixed, or memory=sparse.",
        )
        return make_engine(like, initial)
