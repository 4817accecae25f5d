"""Drawings of the characters of many alphabets: what Omniglot and its stand-in have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mannlab.datasets.cache import Arrays

DRAWINGS = 20  # of each character


@dataclass(frozen=True)
class Drawings:
    """All drawings of a set of characters.

    Attributes:
        images: ``uint8[characters, 20, side, side]``; 0 is paper, 255 is ink.
        names: ``alphabet/character``, sorted.
        held_out: ``bool[characters]``, True in the set's own evaluation part (whole alphabets).
    """

    images: NDArray[np.uint8]
    names: list[str]
    held_out: NDArray[np.bool_]

    @property
    def side(self) -> int:
        """Height and width, pixels."""
        return int(self.images.shape[-1])

    @property
    def alphabets(self) -> list[str]:
        """The alphabets, sorted."""
        return sorted({name.partition("/")[0] for name in self.names})

    def arrays(self) -> Arrays:
        """Plain arrays, for the cache."""
        return {"images": self.images, "names": np.array(self.names), "held_out": self.held_out}

    @classmethod
    def of(cls, arrays: Arrays) -> Drawings:
        """The opposite of :meth:`arrays`."""
        return cls(arrays["images"], [str(name) for name in arrays["names"]], arrays["held_out"])

    def shuffled(self) -> NDArray[np.int64]:
        """Every character's index, in a fixed random order that depends on the names alone.

        The order is that of hashes: it stays the same whatever library or version draws it.
        """
        keys = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in self.names]
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
