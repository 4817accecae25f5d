"""Sizes of a sparse memory with temporal links, and the arrays that its engine works on."""

from __future__ import annotations

from typing import Any, NamedTuple

from mannlab.kernels.sam import layout as sam


class Layout(NamedTuple):
    """Attributes: ``slots`` N; ``width`` W; ``heads`` H, each of which reads and writes; ``sparsity`` K, rows
    that a head finds by content, and as many forward and backward in time; ``links`` L, kept per row and
    direction."""

    slots: int
    width: int
    heads: int
    sparsity: int
    links: int

    @property
    def access(self) -> sam.Layout:
        """The sizes without links. The interface is that of sparse access behind 3 read modes a head."""
        return sam.Layout(self.slots, self.width, self.heads, self.sparsity)

    @property
    def interface(self) -> int:
        """I, the interface's width."""
        return 3 * self.heads + self.access.interface

    @property
    def read_rows(self) -> int:
        """D, rows with weight in one head's read: those found by content, forward and backward."""
        return 3 * self.sparsity

    @property
    def changed(self) -> int:
        """E, rows that one step may change."""
        return self.heads * (1 + self.read_rows)


class Cells(NamedTuple):
    """What B sequences remember, changed in place. The first five are those of ``kernels.sam``.

    Attributes:
        next_rows: ``int64[B, N, L]``, rows written after each row, and ``next_links[B, N, L]``, how surely
            (0: no link).
        prev_rows: ``int64[B, N, L]``, rows written before each row, and ``prev_links[B, N, L]``.
        last_rows: ``int64[B, L]``, rows written last, and ``last_links[B, L]`` (the precedence weights).
    """

    memory: Any
    scale: Any
    after: Any
    before: Any
    live: Any
    next_rows: Any
    next_links: Any
    prev_rows: Any
    prev_links: Any
    last_rows: Any
    last_links: Any


class History(NamedTuple):
    """What S steps leave for the backward pass. The first six are those of ``kernels.sam``, D rows a head.

    Attributes:
        parts: ``[S, B, H, D]``, weights before the read modes.
        paths: ``[S, B, H, D, 2 K]``, the link from each row read before to each row found in time.
    """

    said: Any
    recycled: Any
    rows: Any
    weights: Any
    cosines: Any
    journal: Any
    parts: Any
    paths: Any
