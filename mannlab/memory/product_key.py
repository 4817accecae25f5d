"""Product-key memory of Lample et al. 2019 (arXiv 1907.05242)."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mannlab.contracts import Heads, Memory, Vitals
from mannlab.errors import ConfigError, at_least_one, require
from mannlab.kernels.bag import RowTable
from mannlab.kernels.product_key import search
from mannlab.memory._query_norm import QueryNorm
from mannlab.memory.usage import Usage, statistics
from mannlab.registry import register


class ProductKeyState(NamedTuple):
    """Nothing is carried from step to step: what is remembered is in the parameters."""


@register("memory", "product_key")
class ProductKeyMemory(Memory[ProductKeyState]):
    """Product-key memory: a million values, found by two searches among a thousand (Lample et al. 2019).

    Each head's query is cut in two halves, each is compared with n half-keys, and of the n^2 values the best
    k are summed, weighted by a softmax over their scores; heads are summed. The values are parameters: a
    step reads and changes those found alone. Nothing is written during a sequence, so all its steps run at
    once.

    Args:
        slots: N = n^2 values.
        width: W, length of a value, and of what is read.
        heads: H, each with a query of its own.
        knn: k, values that a head reads.
        key_width: length of a head's query, both halves together.
        query_norm: ``batch`` (of the real steps, as in the paper), ``layer`` or ``none``. Without one a small
            part of the values is used.
        score: weights from scores: ``softmax`` over the k, ``relu``, or ``none`` (the scores themselves;
            Csordas et al. 2023, arXiv 2310.10837).
        shared_keys: the heads search in the same half-keys.
        shared_values: where a controller has several blocks with memory, they have one pool of values.
        gate: multiply what is read by a gate that the controller makes, ``silu(g)`` (Berges et al. 2024,
            arXiv 2412.09764).
        value_lr: learning rate of the values, which have an Adam of their own and no schedule; null: that of
            everything else.
        gradient: of the values: ``auto`` (factors that are never multiplied out, for an Adam that touches
            only the values read), ``sparse`` or ``dense`` (ordinary gradients, for the run's optimizer).
        shard: in a run on several devices, divide the values among them, by their components (``dim``) or
            by their numbers (``row``); ``none``: each has all.

    Raises:
        ConfigError: a size below 1, slots that are not a square, an odd key width, or a knn above n.
    """

    stateful = False

    def __init__(
        self,
        *,
        slots: int = 65536,
        width: int = 128,
        heads: int = 4,
        knn: int = 32,
        key_width: int = 128,
        query_norm: Literal["batch", "layer", "none"] = "batch",
        score: Literal["softmax", "relu", "none"] = "softmax",
        shared_keys: bool = False,
        shared_values: bool = False,
        gate: bool = False,
        value_lr: float | None = 1e-3,
        gradient: Literal["auto", "sparse", "dense"] = "auto",
        shard: Literal["none", "dim", "row"] = "none",
    ) -> None:
        super().__init__()
        size = half_keys(slots)
        at_least_one("memory", width=width, heads=heads, knn=knn, key_width=key_width)
        require(
            knn <= size,
            f"memory.knn: {knn} is not allowed with memory.slots={slots}.",
            f"A head can read at most as many values as there are half-keys, here {size}.",
        )
        require(
            key_width % 2 == 0,
            f"memory.key_width: {key_width} is not allowed.",
            "It must be even: a query is cut in two halves.",
        )
        require(
            value_lr is None or value_lr > 0,
            f"memory.value_lr: {value_lr} is not allowed.",
            "It must be above 0, or null.",
        )
        require(
            shard == "none" or gradient == "auto",
            f"memory.gradient: {gradient} is not allowed with memory.shard={shard}.",
            "Use memory.gradient=auto.",
        )
        self.slots, self.width, self.heads, self.knn = slots, width, heads, knn
        self.score, self.gate, self.shared_values = score, gate, shared_values
        self.query_size = heads * key_width
        self.interface_size = self.query_size + (width if gate else 0)
        # The mean is taken off anyway: the gradient would be rounding alone, which Adam makes a random walk.
        self.interface_bias = query_norm != "batch"
        self.read_size = width
        self.keys = nn.Parameter(torch.empty(2, 1 if shared_keys else heads, size, key_width // 2))
        self._draw_keys()
        self.values = RowTable(
            slots, width, gradient=gradient, lr=value_lr, divide=None if shard == "none" else shard
        )
        self.norm: nn.Module | None = None
        if query_norm == "batch":
            self.norm = QueryNorm(self.query_size)
        elif query_norm == "layer":
            self.norm = nn.LayerNorm(key_width)
        self.usage = Usage(slots)
        self._counts: Tensor | None = None

    def _draw_keys(self) -> None:
        bound = self.keys.shape[-1] ** -0.5
        nn.init.uniform_(self.keys, -bound, bound)

    def sibling(self) -> ProductKeyMemory | None:
        if not self.shared_values:
            return None
        other = deepcopy(self, {id(self.values): self.values})
        other._draw_keys()
        return other

    def init_state(self, batch: int) -> ProductKeyState:
        return ProductKeyState()

    def forward(self, interface: Tensor, state: ProductKeyState) -> tuple[Tensor, ProductKeyState]:
        return self.read(interface), state

    def step(
        self, interface: Tensor, state: ProductKeyState, valid: Tensor | None = None
    ) -> tuple[Tensor, ProductKeyState]:
        return self.read(interface, valid), state

    def sequence(
        self, interface: Tensor, state: ProductKeyState, valid: Tensor | None = None
    ) -> tuple[Tensor, ProductKeyState]:
        flat = None if valid is None else valid.flatten()
        return self.read(interface.flatten(0, 1), flat).unflatten(0, interface.shape[:2]), state

    def read(self, interface: Tensor, valid: Tensor | None = None) -> Tensor:
        """``interface[T, I]`` to reads ``[T, W]``; ``valid[T]`` is 1 for real steps."""
        rows, weights = self.address(interface[:, : self.query_size], valid)
        reads = self.values(rows.flatten(1), weights.flatten(1)).to(interface.dtype)
        if self.observing and not self.training:
            real = slice(None) if valid is None else valid.bool()
            self.usage.add(rows[real], weights[real])
        return reads * silu(interface[:, -self.width :]) if self.gate else reads

    def looks(
        self, interface: Tensor, state: ProductKeyState, valid: Tensor | None = None
    ) -> dict[str, Heads]:
        """As of :class:`Memory`; weights may be anything where the score is no softmax."""
        said = interface.flatten(0, 1)
        found = self.address(said[:, : self.query_size], None if valid is None else valid.flatten())
        rows, weights = (part.unflatten(0, interface.shape[:2]) for part in found)
        return {"read weights": Heads(weights, self.slots, rows)}

    def rows(self, state: ProductKeyState, slots: Tensor | None = None) -> Tensor | None:
        """The values, which only training writes; None where they are divided among devices."""
        if self.values.shards is not None:
            return None
        weight = self.values.weight.detach()
        return (weight if slots is None else weight[slots]).unsqueeze(0)

    def rows_sequence(
        self, interface: Tensor, state: ProductKeyState, slots: Tensor, valid: Tensor | None = None
    ) -> Tensor | None:
        rows = self.rows(state, slots)
        return None if rows is None else rows.unsqueeze(1).expand(*interface.shape[:2], -1, -1)

    def address(self, queries: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Which values each head reads: ``queries[T, H * key_width]`` to rows and weights ``[T, H, k]``."""
        queries = queries.to(self.keys.dtype)
        if isinstance(self.norm, QueryNorm):
            queries = self.norm(queries, valid)
        apart = queries.unflatten(1, (self.heads, -1))
        if isinstance(self.norm, nn.LayerNorm):
            apart = self.norm(apart)
        found = search(apart.unflatten(2, (2, -1)), self.keys, self.knn)
        if self.score == "softmax":
            return found.rows, torch.softmax(found.scores, dim=-1)
        return found.rows, torch.relu(found.scores) if self.score == "relu" else found.scores

    def vitals_sequence(
        self, interface: Tensor, state: ProductKeyState, valid: Tensor | None = None
    ) -> Vitals:
        weights, slots, rows = self.looks(interface, state, valid)["read weights"]
        gates = {"output_gate": torch.sigmoid(interface[..., -self.width :])} if self.gate else {}
        return Vitals({"read": Heads(weights.abs(), slots, rows)}, gates)

    def contents(self, state: ProductKeyState) -> dict[str, Tensor]:
        """The half-keys: values are too many to look at."""
        return {"half-keys": self.keys.detach().flatten(0, 2).unsqueeze(0)}

    def row_labels(self, title: str) -> dict[str, list[str]]:
        halves, heads, size, _ = self.keys.shape
        places = [(half, head, key) for half in range(halves) for head in range(heads) for key in range(size)]
        half, head, key = zip(*places, strict=True)
        return {"half": [*map(str, half)], "head": [*map(str, head)], "key": [*map(str, key)]}

    def begin_evaluation(self) -> None:
        self.usage.reset()

    def evaluation_metrics(self) -> dict[str, float]:
        """How evenly the values were used in evaluation since the last call (see ``usage.statistics``)."""
        self._counts = self.usage.take()
        return {} if self._counts is None else statistics(*self._counts)

    def pictures(self) -> dict[str, Any]:
        """The map of the n x n values: how often each was read in the last evaluation."""
        if self._counts is None:
            return {}
        from mannlab.plots.usage import draw_usage

        return {"values read": draw_usage(self._counts[0])}


def half_keys(slots: int) -> int:
    """n, where ``slots`` is n^2.

    Raises:
        ConfigError: it is not a square; names the nearest ones.
    """
    size = math.isqrt(max(slots, 0))
    if slots < 1 or size * size != slots:
        near = f"{max(size, 1) ** 2} ({max(size, 1)}²) or {(size + 1) ** 2} ({size + 1}²)"
        raise ConfigError(f"memory.slots: {slots} is not a square.", f"Values lie on a square: try {near}.")
    return size
