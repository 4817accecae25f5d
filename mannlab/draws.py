"""Randomness by counter: sample ``i`` of a stream depends on (seed, split, i) and on nothing else.

So any number of workers, any rank and any resume see the same data. Each sample owns a fixed block
of 2^32 counter values of a Philox generator (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3") keyed by the seed and the stream's name; a batch of consecutive samples can be drawn in
one vectorised call.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

WORDS_PER_COUNT = 4  # one Philox4x64 counter value yields four 64-bit words


@dataclass(frozen=True)
class Draws:
    """The random numbers of one stream of samples.

    Args:
        seed: the run's seed.
        stream: a name, such as ``"train"``; streams of different names are independent.
    """

    seed: int
    stream: str

    def _philox(self, purpose: str) -> np.random.Philox:
        digest = hashlib.blake2b(f"{self.seed}|{self.stream}|{purpose}".encode(), digest_size=16)
        return np.random.Philox(key=int.from_bytes(digest.digest(), "little"))

    def generator(self, index: int) -> np.random.Generator:
        """A generator of its own for sample ``index`` (about 20 microseconds to make)."""
        return np.random.Generator(self._philox("sample").advance(index << 32))

    def words(self, start: int, count: int, words: int, purpose: str = "words") -> Words:
        """Raw 64-bit words for ``count`` consecutive samples.

        Args:
            start: index of the first sample.
            count: number of samples.
            words: 64-bit words per sample; always ask the same number for the same ``purpose``,
                since it decides where a sample's block begins.
            purpose: words of different purposes are independent.

        Returns:
            ``uint64[count, words]``; row ``j`` depends on sample ``start + j`` alone.
        """
        blocks = -(-words // WORDS_PER_COUNT)
        philox = self._philox(purpose).advance(start * blocks)
        raw = philox.random_raw(count * blocks * WORDS_PER_COUNT)
        return raw.reshape(count, blocks * WORDS_PER_COUNT)[:, :words]

    def bits(self, start: int, count: int, bits: int, purpose: str = "bits") -> NDArray[np.uint8]:
        """Fair random bits, ``uint8[count, bits]`` of zeros and ones."""
        raw = self.words(start, count, -(-bits // 64), purpose)
        return np.unpackbits(raw.view(np.uint8), axis=1)[:, :bits]

    def uniform(self, start: int, count: int, size: int, purpose: str = "uniform") -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), ``float64[count, size]``."""
        raw = self.words(start, count, size, purpose)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(
        self, start: int, count: int, low: int, high: int, purpose: str = "integers", bucket: int = 1
    ) -> NDArray[np.int64]:
        """One integer in [low, high] (both included) per sample, ``int64[count]``.

        ``bucket`` samples in a row share one, so that a batch of as many needs no padding.
        """
        first = start // bucket
        fraction = self.uniform(first, (start + count - 1) // bucket - first + 1, 1, purpose)[:, 0]
        drawn = low + (fraction * (high - low + 1)).astype(np.int64)
        return drawn[np.arange(start, start + count) // bucket - first]
