"""Approximate search: which rows to compare with a key, when comparing all of them takes too long.

An index proposes candidates; the engine then compares those exactly. So an approximate search can miss a
row, but never misjudges one, and nothing is differentiated through the index. Rows that changed since they
were indexed stay candidates, or are indexed again at once.

Every so often the K best of all rows are found as well; the share that the index found too is its recall.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mannlab.kernels.sam.layout import Cells, Layout

MEASURE_EVERY = 64  # steps between two measurements of recall
LIVE_BEFORE_AUTO = 16384  # rows in use from which ``auto`` stops comparing all of them


class Index(Protocol):
    """Proposes candidates for one session."""

    def build(self, cells: Cells) -> None:
        """Take in all rows in use."""

    def update(self, cells: Cells, changed: Tensor) -> None:
        """Take in rows that changed, ``int64[B, E]``; some may come twice."""

    def query(self, keys: Tensor, cells: Cells) -> Tensor:
        """Rows to compare with ``keys[B, H, W]``: ``int64[B, H, C]``; some may come twice; -1 for none."""


class Recall:
    """How many of the K best rows an index found.

    Attributes:
        found, wanted: rows, summed over what was measured.
    """

    def __init__(self) -> None:
        self.found: Tensor | float = 0.0
        self.wanted, self.steps = 0, 0

    def due(self) -> bool:
        """Whether this step is one to measure."""
        self.steps += 1
        return self.steps % MEASURE_EVERY == 1

    def add(self, cosines: Tensor, best: Tensor) -> None:
        """Cosines of the rows found and of the best rows, ``[B, H, K]`` each.

        By cosine and not by number: of rows that are equally good any will do.
        """
        bar = best.amin(-1, keepdim=True)
        self.found = self.found + (cosines >= bar - 1e-6 * bar.abs() - 1e-9).sum()
        self.wanted += best.numel()

    def percent(self) -> float | None:
        """The recall so far, which starts anew; None if nothing was measured."""
        if not self.wanted:
            return None
        value = 100 * float(self.found) / self.wanted
        self.found, self.wanted = 0.0, 0
        return value


# ---------------------------------------------------------------------- locality-sensitive hashing


class LSH:
    """Random hyperplanes (Charikar 2002) in several tables of buckets, on any device.

    A row goes to the bucket that the signs of its products with random directions name, in each table, and
    takes the place of the oldest one there when it is full; one that stands there already stays where it is,
    so that rows that are read again and again do not drive all others out. A key looks into its own buckets
    and into those across the nearest plane.

    Args:
        layout: sizes.
        batch: B.
        like: a tensor of the device and floating type to work in.
        tables: number of tables.
        depth: rows in a bucket.
    """

    # A sequence begun in inference mode may go on outside, where tensors of that mode cannot be written to.
    @torch.inference_mode(False)
    def __init__(self, layout: Layout, batch: int, like: Tensor, tables: int = 8, depth: int = 32) -> None:
        self.tables, self.depth, self.batch = tables, depth, batch
        self.bits = min(14, max(4, math.ceil(math.log2(max(layout.slots, 2) / depth)) + 1))
        generator = torch.Generator().manual_seed(layout.width)
        planes = torch.randn(layout.width, tables * self.bits, generator=generator)
        self.planes = planes.to(like)
        self.weights = 2 ** torch.arange(self.bits, device=like.device)
        # The last bucket is asked by no key.
        shape = (batch, tables * 2**self.bits + 1, depth)
        if like.device.type == "cpu":
            # Pages that nobody touches take no memory and no time.
            self.buckets = torch.from_numpy(np.zeros(shape, np.int64))
            self.counts = torch.from_numpy(np.zeros(shape[:2], np.int64))
        else:
            self.buckets = torch.zeros(shape, dtype=torch.int64, device=like.device)
            self.counts = torch.zeros(shape[:2], dtype=torch.int64, device=like.device)
        self.offsets = torch.arange(tables, device=like.device) * 2**self.bits

    def _codes(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Bucket of ``[B, n, W]`` in each table ``[B, n, L]``, and the one across the nearest plane."""
        sides = (vectors @ self.planes).unflatten(-1, (self.tables, self.bits))
        code = ((sides > 0) * self.weights).sum(-1)
        nearest = self.weights[sides.abs().argmin(-1)]
        return code + self.offsets, (code ^ nearest) + self.offsets

    def build(self, cells: Cells) -> None:
        live = int(np.max(cells.live))
        for start in range(0, live, 256):
            rows = torch.arange(start, min(start + 256, live), device=self.planes.device)
            self.update(cells, rows.expand(self.batch, -1))

    def update(self, cells: Cells, changed: Tensor) -> None:
        memory = torch.as_tensor(cells.memory)
        vectors = memory.gather(1, changed.unsqueeze(-1).expand(-1, -1, memory.shape[2]))
        codes = self._codes(vectors)[0].flatten(1)  # [B, n * L]
        rows = changed.unsqueeze(-1).expand(-1, -1, self.tables).flatten(1)
        standing = self._in(codes).eq((rows + 1).unsqueeze(-1)).any(-1)
        codes = codes.masked_fill(standing, self.buckets.shape[1] - 1)
        # Several rows for one bucket take places one after the other.
        ordered, order = codes.sort(dim=1, stable=True)
        places = torch.arange(codes.shape[1], device=codes.device)
        first = torch.searchsorted(ordered, ordered)
        rank = torch.empty_like(codes).scatter_(1, order, places - first)
        place = (self.counts.gather(1, codes) + rank) % self.depth
        self.buckets.view(self.batch, -1).scatter_(1, codes * self.depth + place, rows + 1)
        self.counts.scatter_add_(1, codes, torch.ones_like(codes))

    def query(self, keys: Tensor, cells: Cells) -> Tensor:
        codes = torch.cat(self._codes(keys), dim=-1)  # [B, H, 2 L]
        return self._in(codes.flatten(1)).view(*codes.shape[:2], -1) - 1

    def _in(self, codes: Tensor) -> Tensor:
        """What stands in buckets ``[B, n]``: rows, counted from 1, ``[B, n, depth]``."""
        return self.buckets.gather(1, codes.unsqueeze(-1).expand(-1, -1, self.depth))


# ---------------------------------------------------------------------- faiss


class Faiss:
    """Inverted lists of faiss (Johnson et al. 2017), rebuilt as the memory grows; on CPUs.

    Rows changed since the last rebuild are candidates as they are.

    Args:
        layout: sizes.
        batch: B.
        proposals: rows that the lists propose for each key.
        probes: share of the lists that are looked through.
    """

    def __init__(self, layout: Layout, batch: int, proposals: int = 32, probes: float = 0.1) -> None:
        import faiss

        self.faiss, self.layout, self.proposals, self.probes = faiss, layout, proposals, probes
        self.lists: list[Any] = [None] * batch
        self.fresh: list[dict[int, None]] = [{} for _ in range(batch)]
        self.rebuilds = 0

    def build(self, cells: Cells) -> None:
        for b in range(len(self.lists)):
            self._rebuild(cells, b)

    def _rebuild(self, cells: Cells, b: int) -> None:
        live = int(cells.live[b])
        self.fresh[b].clear()
        if live == 0:
            return
        rows = np.ascontiguousarray(cells.memory[b, :live], np.float32)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        count = max(1, int(math.sqrt(live) / 2))
        quantizer = self.faiss.IndexFlatIP(self.layout.width)
        index = self.faiss.IndexIVFFlat(quantizer, self.layout.width, count, self.faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.cp.min_points_per_centroid = 1
        index.cp.niter = 8
        index.train(rows)
        index.add(rows)
        index.nprobe = max(1, math.ceil(self.probes * count))
        self.lists[b] = index
        self.rebuilds += 1

    def update(self, cells: Cells, changed: Tensor) -> None:
        for b, rows in enumerate(changed.tolist()):
            self.fresh[b].update(dict.fromkeys(rows))
            if len(self.fresh[b]) > max(1024, 8 * math.sqrt(int(cells.live[b]))):
                self._rebuild(cells, b)

    def query(self, keys: Tensor, cells: Cells) -> Tensor:
        proposed = []
        for b, index in enumerate(self.lists):
            fresh = np.fromiter(self.fresh[b], np.int64)
            there = np.tile(fresh, (keys.shape[1], 1))
            if index is not None:
                _, found = index.search(np.ascontiguousarray(keys[b].numpy(), np.float32), self.proposals)
                there = np.concatenate([found, there], axis=1)
            proposed.append(torch.from_numpy(np.ascontiguousarray(there)))
        widest = max(part.shape[1] for part in proposed)
        padded = [torch.nn.functional.pad(part, (0, widest - part.shape[1]), value=-1) for part in proposed]
        return torch.stack(padded)


def make_index(name: str, layout: Layout, batch: int, like: Tensor) -> Index:
    """The index called ``faiss`` or ``lsh``."""
    return Faiss(layout, batch) if name == "faiss" else LSH(layout, batch, like)


def with_spares(candidates: Tensor, live: Tensor, layout: Layout) -> Tensor:
    """Candidates, and the first rows never used: nearer to a key than what is opposed to it."""
    spares = live[:, None] + torch.arange(layout.sparsity, device=candidates.device)
    spares = torch.where(spares < layout.slots, spares, -1)
    return torch.cat([candidates, spares[:, None].expand(-1, candidates.shape[1], -1)], dim=2)
