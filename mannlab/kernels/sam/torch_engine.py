"""The engine for any device: torch tensors, every operation over the whole batch, no wait for the device.

Same arrays as the compiled engine, but for usage: ``after`` holds the time of each row's last access
(0: never) instead of a circle, and ``live`` is a bound that the host knows without asking the device.
The least recently used rows are looked for below that bound, like the best matches.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from mannlab.kernels.sam.index import with_spares
from mannlab.kernels.sam.layout import DELTA, NORM_EPSILON, Cells, History, Layout
from mannlab.kernels.sam.session import Last, Search


class TorchEngine:
    """See :class:`mannlab.kernels.sam.session.Engine`.

    Args:
        like: a tensor of the device and floating type to work in.
        initial: ``[N, W]``, the initial memory; None for zeros.
    """

    def __init__(self, like: Tensor, initial: Tensor | None = None) -> None:
        self.like = like.detach()
        self.key = (like.dtype, like.device)
        self.initial = None if initial is None else initial.detach().clone()
        self.clock = 0

    def starts_from(self, initial: Tensor) -> bool:
        return self.initial is not None and torch.equal(self.initial, initial)

    # ------------------------------------------------------------------ arrays
    # An evaluation's arrays are for training, too, which may not write to tensors of inference mode.

    @torch.inference_mode(False)
    def cells(self, batch: int, layout: Layout) -> Cells:
        slots, width = layout.slots, layout.width
        memory = self.like.new_zeros(batch, slots, width)
        scale = self.like.new_zeros(batch, slots)
        if self.initial is not None:
            memory.copy_(self.initial.expand_as(memory))
            scale.copy_(inverse_norm(memory))
        stamps = torch.zeros(batch, slots, dtype=torch.int64, device=self.like.device)
        return Cells(memory, scale, stamps, stamps[:, :0], self._live(batch, slots))

    def _live(self, batch: int, slots: int) -> Any:
        return np.full(batch, 0 if self.initial is None else slots)

    @torch.inference_mode(False)
    def history(self, steps: int, batch: int, layout: Layout) -> History:
        heads, sparsity = layout.heads, layout.sparsity
        new = self.like.new_zeros
        return History(
            new(steps, batch, layout.interface),
            new(steps, batch, heads, dtype=torch.int64),
            new(steps, batch, heads, sparsity, dtype=torch.int64),
            new(steps, batch, heads, sparsity),
            new(steps, batch, heads, sparsity),
            new(steps, batch, layout.changed, layout.width),
        )

    def nothing(self, batch: int, layout: Layout) -> Last:
        shape = (batch, layout.heads, layout.sparsity)
        return Last(self.like.new_zeros(shape, dtype=torch.int64), self.like.new_zeros(shape))

    @torch.inference_mode(False)
    def gradient(self, cells: Cells) -> Any:
        return torch.zeros_like(cells.memory)

    # ------------------------------------------------------------------ forward

    def _full_precision(self) -> AbstractContextManager[Any]:
        device = self.like.device.type
        mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return torch.autocast(device, enabled=False) if mixed else nullcontext()

    @torch.no_grad()
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
        memory, scale, stamps = cells.memory, cells.scale, cells.after
        batch, slots, width = memory.shape
        heads, sparsity = history.rows.shape[2:]
        real = None if valid is None else valid.bool().view(-1, 1, 1)
        bound = int(cells.live[0])

        said = history.said[s]
        key, strength, add, gate, old = self._activate(interface, said, heads, width)
        reach = min(slots, bound + heads)
        numbers = torch.arange(reach, device=memory.device)
        age = torch.where(stamps[:, :reach] == 0, numbers - slots, stamps[:, :reach])
        recycled = age.topk(heads, dim=1, largest=False).indices  # in order: the least recent first

        changed = torch.cat([recycled, last.rows.flatten(1)], dim=1)
        places = changed.unsqueeze(-1).expand(-1, -1, width)
        before = memory.gather(1, places)
        history.journal[s] = before
        fresh, again = gate * (1 - old), gate * old * last.weights  # [B, H, 1], [B, H, K]
        added = torch.cat([fresh * add, (again.unsqueeze(-1) * add.unsqueeze(2)).flatten(1, 2)], dim=1)
        emptied = before[:, :heads] * 0
        if real is not None:
            added = added * real
            emptied = torch.where(real, emptied, before[:, :heads])
        memory.scatter_(1, places[:, :heads], emptied)
        memory.scatter_add_(1, places, added)
        scale.scatter_(1, changed, inverse_norm(memory.gather(1, places)))

        unit = key * inverse_norm(key).unsqueeze(-1)
        limit = min(slots, bound + heads + sparsity)
        with self._full_precision():
            if search is None:
                rows, cosines = best(self._similar(unit, cells, limit), sparsity)
            else:
                search.source.update(cells, changed)
                rows, cosines = self._among(unit, cells, history, search, min(slots, bound + heads))
                if search.recall.due():
                    search.recall.add(cosines, best(self._similar(unit, cells, limit), sparsity)[1])
        weights = torch.softmax(strength * cosines, dim=-1)
        found = memory.gather(1, rows.flatten(1).unsqueeze(-1).expand(-1, -1, width))
        reads = (weights.unsqueeze(-1) * found.view(batch, heads, sparsity, width)).sum(2)

        amounts = torch.zeros_like(scale[:, :limit])
        amounts.scatter_add_(1, changed, torch.cat([fresh.squeeze(-1), again.flatten(1)], dim=1))
        amounts.scatter_add_(1, rows.flatten(1), weights.flatten(1))
        accessed = amounts > DELTA
        self.clock += 1
        now = self.clock * slots + torch.arange(limit, device=memory.device)
        if real is not None:
            accessed &= real.squeeze(-1)
            rows = torch.where(real, rows, last.rows)
            weights = torch.where(real, weights, last.weights)
            reads = reads * real
            recycled = torch.where(real.squeeze(-1), recycled, -1)
        stamps[:, :limit] = torch.where(accessed, now, stamps[:, :limit])
        cells.live[:] = limit
        history.recycled[s] = recycled
        history.rows[s] = rows
        history.weights[s] = weights
        history.cosines[s] = cosines
        return reads.flatten(1), weights

    def _similar(self, unit: Tensor, cells: Cells, limit: int) -> Tensor:
        """Cosine of every key with every row below a limit, ``[B, H, limit]``."""
        return torch.bmm(unit, cells.memory[:, :limit].transpose(1, 2)) * cells.scale[:, None, :limit]

    def _among(
        self, unit: Tensor, cells: Cells, history: History, search: Search, live: int
    ) -> tuple[Tensor, Tensor]:
        """The best of the rows that the index proposes, and their cosines, ``[B, H, K]``."""
        batch, slots, width = cells.memory.shape
        heads, sparsity = history.rows.shape[2:]
        found = search.source.query(unit, cells)
        bound = torch.full((batch,), live, device=unit.device)
        found = with_spares(found, bound, Layout(slots, width, heads, sparsity))
        floor = torch.arange(sparsity, device=unit.device).expand(batch, heads, -1)
        # In order of number, so that those that come twice are neighbours and of equal ones the lower wins.
        found = torch.cat([found, floor], dim=2).sort(dim=2).values
        again = torch.zeros_like(found, dtype=torch.bool)
        again[..., 1:] = found[..., 1:] == found[..., :-1]
        places = found.clamp(min=0).flatten(1)
        rows = cells.memory.gather(1, places.unsqueeze(-1).expand(-1, -1, width)).unflatten(1, (heads, -1))
        scale = cells.scale.gather(1, places).unflatten(1, (heads, -1))
        similar = (rows * unit.unsqueeze(2)).sum(-1) * scale
        similar = similar.masked_fill(again | (found < 0), -torch.inf)
        place, cosines = best(similar, sparsity)
        return found.gather(2, place), cosines

    def _activate(self, interface: Tensor, said: Tensor, heads: int, width: int) -> tuple[Tensor, ...]:
        """Writes what was said, and returns its fields, ``[B, H, W]`` or ``[B, H, 1]`` each."""
        strengths = heads * width
        adds = strengths + heads
        gates = adds + strengths
        said[:, :strengths] = interface[:, :strengths]
        said[:, strengths:adds] = softplus(interface[:, strengths:adds])
        said[:, adds:gates] = interface[:, adds:gates].tanh()
        said[:, gates:] = interface[:, gates:].sigmoid()
        return fields(said, heads, width)

    # ------------------------------------------------------------------ backward

    @torch.no_grad()
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
        batch, _, width = cells.memory.shape
        heads, sparsity = history.rows.shape[2:]
        rows, weights, cosines = history.rows[s], history.weights[s], history.cosines[s]
        key, strength, add, gate, old = fields(history.said[s], heads, width)
        recycled = history.recycled[s]
        real = (recycled[:, :1] >= 0).unsqueeze(-1)  # [B, 1, 1]
        on_read = self.like.new_zeros(batch, heads * width) if grad_reads is None else grad_reads
        on_weights = torch.zeros_like(weights) if grad_weights is None else grad_weights

        # The read. From the softmax, d cosine = strength * score.
        places = rows.flatten(1).unsqueeze(-1).expand(-1, -1, width)
        found = cells.memory.gather(1, places).view(batch, heads, sparsity, width)
        on_read = on_read.view(batch, heads, 1, width)
        total = on_weights + (on_read * found).sum(-1)
        score = weights * (total - (weights * total).sum(-1, keepdim=True))
        share = score * strength
        per_key, per_row = inverse_norm(key).unsqueeze(-1), inverse_norm(found)
        along = share * per_key * per_row
        across = share * cosines * per_row * per_row
        grad_key = (along.unsqueeze(-1) * found).sum(2)
        grad_key = grad_key - (share * cosines).sum(-1, keepdim=True) * per_key * per_key * key
        grad_strength = (score * cosines).sum(-1, keepdim=True) * -torch.expm1(-strength)
        on_rows = weights.unsqueeze(-1) * on_read + along.unsqueeze(-1) * key.unsqueeze(2)
        on_rows = on_rows - across.unsqueeze(-1) * found
        gradient.scatter_add_(1, places, (on_rows * real.unsqueeze(-1)).flatten(1, 2))

        # The write.
        emptied = recycled.clamp(min=0).unsqueeze(-1).expand(-1, -1, width)
        on_fresh = gradient.gather(1, emptied)  # [B, H, W]
        before = last.rows.flatten(1).unsqueeze(-1).expand(-1, -1, width)
        on_again = gradient.gather(1, before).view(batch, heads, sparsity, width)
        gain_fresh = (add * on_fresh).sum(-1, keepdim=True)
        gain_again = (add.unsqueeze(2) * on_again).sum(-1)  # [B, H, K]
        gain_old = (last.weights * gain_again).sum(-1, keepdim=True)
        grad_add = gate * (1 - old) * on_fresh
        grad_add = grad_add + gate * old * (last.weights.unsqueeze(-1) * on_again).sum(2)
        grad_add = grad_add * (1 - add * add)
        grad_gate = ((1 - old) * gain_fresh + old * gain_old) * gate * (1 - gate)
        grad_old = gate * (gain_old - gain_fresh) * old * (1 - old)
        gradient.scatter_(1, emptied, torch.where(real, torch.zeros_like(on_fresh), on_fresh))

        parts = [grad_key, grad_strength, grad_add, grad_gate, grad_old]
        out = torch.cat([part.flatten(1) for part in parts], dim=1) * real.squeeze(-1)
        grad_before = torch.where(real, gate * old * gain_again, on_weights)
        self.swap(s, last, cells, history)
        return out, grad_before

    @torch.no_grad()
    def swap(self, s: int, last: Last, cells: Cells, history: History) -> None:
        recycled = history.recycled[s]
        changed = torch.cat([recycled.clamp(min=0), last.rows.flatten(1)], dim=1)
        places = changed.unsqueeze(-1).expand(-1, -1, cells.memory.shape[2])
        now = cells.memory.gather(1, places)
        real = (recycled[:, :1] >= 0).unsqueeze(-1)
        then = torch.where(real, history.journal[s], now)
        cells.memory.scatter_(1, places, then)
        cells.scale.scatter_(1, changed, inverse_norm(then))
        history.journal[s] = now

    # ------------------------------------------------------------------ back to the start

    @torch.no_grad()
    def forget(self, cells: Cells, gradient: Any | None, steps: int, blocks: list[History]) -> None:
        for block in blocks:
            here = min(steps, len(block.rows))
            steps -= here
            used = [block.recycled[:here].clamp(min=0), block.rows[:here].flatten(2)]
            rows = torch.cat(used, dim=2).transpose(0, 1).flatten(1)
            cells.after.scatter_(1, rows, 0)
            if gradient is not None:
                gradient.scatter_(1, rows.unsqueeze(-1).expand(-1, -1, gradient.shape[2]), 0)
        cells.live[:] = self._live(1, cells.memory.shape[1])

    @torch.no_grad()
    def reset(self, cells: Cells, gradient: Any | None) -> None:
        bound = int(cells.live[0])
        rows = 0 if self.initial is None else self.initial[:bound]
        cells.memory[:, :bound] = rows
        cells.scale[:, :bound] = inverse_norm(cells.memory[:, :bound])
        cells.after[:, :bound] = 0
        if gradient is not None:
            gradient[:, :bound] = 0
        cells.live[:] = self._live(1, cells.memory.shape[1])

    def clear(self, cells: Cells, gradient: Any) -> None:
        gradient[:, : int(cells.live[0])] = 0

    @torch.no_grad()
    def copy(self, source: Cells, target: Cells) -> None:
        bound = int(source.live[0])
        for mine, other in ((target.memory, source.memory), (target.scale, source.scale)):
            mine[:, :bound] = other[:, :bound]
        target.after[:, :bound] = source.after[:, :bound]
        target.live[:] = source.live

    def initial_gradient(self, cells: Cells, gradient: Any) -> Tensor:
        total: Tensor = gradient.sum(0)
        return total


def inverse_norm(rows: Tensor) -> Tensor:
    """One over the norm of ``[..., W]``."""
    # In float16 the usual epsilon is 0.
    epsilon = max(NORM_EPSILON, torch.finfo(rows.dtype).tiny)
    return (rows.square().sum(-1) + epsilon).rsqrt()


def fields(said: Tensor, heads: int, width: int) -> tuple[Tensor, ...]:
    """Key, strength, add vector, write gate and old gate: ``[B, H, W]`` or ``[B, H, 1]`` each."""
    parts = said.split([heads * width, heads, heads * width, heads, heads], dim=1)
    return tuple(part.view(len(said), heads, -1) for part in parts)


def best(similar: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places and values of the best of ``[B, H, P]``, best first; of equal ones the lower place wins."""
    if similar.dtype != torch.float32:
        values, places = similar.sort(dim=-1, descending=True, stable=True)
        return places[..., :count], values[..., :count]
    # topk leaves ties to chance. So: value and place in one integer that sorts like the pair.
    bits = (similar + 0.0).view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    places = torch.arange(similar.shape[-1], device=similar.device)
    chosen = (ordered * 2**32 + (2**32 - 1 - places)).topk(count, dim=-1).values
    found = 2**32 - 1 - (chosen & 0xFFFFFFFF)
    return found, similar.gather(-1, found)
