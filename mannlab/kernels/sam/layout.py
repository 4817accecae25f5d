"""Sizes of a sparse memory, how its interface is cut into fields, and the arrays that engines work on."""

from __future__ import annotations

from typing import Any, NamedTuple

# A row counts as accessed when its write and read weights together exceed this (section 3.2).
DELTA = 0.005
# Keeps norms away from zero: an empty row has cosine 0 with everything.
NORM_EPSILON = 1e-8


class Layout(NamedTuple):
    """Attributes: ``slots`` N; ``width`` W; ``heads`` H, each of which reads and writes; ``sparsity`` K,
    rows with weight in one head's read."""

    slots: int
    width: int
    heads: int
    sparsity: int

    @property
    def fields(self) -> list[int]:
        """Widths of key, strength, add vector, write gate and old gate in the interface."""
        return [self.heads * self.width, self.heads, self.heads * self.width, self.heads, self.heads]

    @property
    def interface(self) -> int:
        """I, the interface's width."""
        return sum(self.fields)

    @property
    def changed(self) -> int:
        """E, rows that one step may change: each head's recycled row, and the K it read before."""
        return self.heads * (1 + self.sparsity)


class Cells(NamedTuple):
    """What B sequences remember, changed in place.

    Attributes:
        memory: ``[B, N, W]``.
        scale: ``[B, N]``, one over each row's norm; 0 for rows never written, whose products are 0 anyway.
        after: ``int64[B, N + 1]``, the circle of rows by last access. Place N is the sentinel, which the
            least recently used row follows. Kept as differences from the first order (0, 1, 2, ...), so
            that zeros are the circle of an unused memory.
        before: the same circle, backwards.
        live: ``int64[B]``; rows from here on were never written nor read.
    """

    memory: Any
    scale: Any
    after: Any
    before: Any
    live: Any


class History(NamedTuple):
    """What S steps leave for the backward pass; a step's entry is written once.

    Attributes:
        said: ``[S, B, I]``, the interface after its activations.
        recycled: ``int64[S, B, H]``, the rows recycled; -1 where the step was padding.
        rows: ``int64[S, B, H, K]``, the rows read.
        weights: ``[S, B, H, K]``, of those rows.
        cosines: ``[S, B, H, K]``, of those rows with the key.
        journal: ``[S, B, E, W]``, contents of the changed rows: those recycled, then those read before.
    """

    said: Any
    recycled: Any
    rows: Any
    weights: Any
    cosines: Any
    journal: Any
