"""What memories that change one buffer in place share: sessions on pooled buffers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts import Heads, Memory, Vitals
from mannlab.errors import ConfigError, at_least_one, require
from mannlab.kernels.sam.function import start, step
from mannlab.kernels.sam.session import Engine, Handle, Indexing, Pool, Session


class InPlaceState(NamedTuple):
    """Attributes: ``weights[B, H, D]`` of the rows read last; ``handle``, the right to make the next step."""

    weights: Tensor
    handle: Handle


class InPlaceMemory(Memory[InPlaceState]):
    """A memory whose steps are a :class:`mannlab.kernels.sam.session.Session`'s.

    Args:
        layout: sizes, with ``slots``, ``width``, ``heads``, ``sparsity`` and ``interface``.
        init: ``zero``, ``learned`` or ``random``.

    Raises:
        ConfigError: a size below 1, more rows to read than slots, or more heads than slots.
    """

    reorderable = False
    resizable = frozenset({"slots"})
    first_memory: Tensor | None
    _like: Tensor

    def __init__(self, layout: Any, init: str) -> None:
        super().__init__()
        check_sizes(layout)
        self.layout = layout
        self.interface_size = layout.interface
        self.read_size = layout.heads * layout.width
        rows = None if init == "zero" else torch.randn(layout.slots, layout.width) * 0.1
        if init == "learned":
            assert rows is not None
            self.first_memory = nn.Parameter(rows)
        else:
            self.register_buffer("first_memory", rows, persistent=init == "random")
        # Follows the module's type and device, whatever else it holds.
        self.register_buffer("_like", torch.zeros(()), persistent=False)
        self._pool = Pool()
        self._indexing = Indexing()
        self._engine: tuple[object, Engine] | None = None

    @abstractmethod
    def make_engine(self, like: Tensor, initial: Tensor | None) -> Engine:
        """The engine for the device and type of ``like``, and the initial memory or None for zeros."""

    def _engine_now(self) -> Engine:
        initial = self.first_memory
        version = None if initial is None else (initial.data_ptr(), initial._version)
        key = (self._like.dtype, self._like.device, version)
        # Fused optimizers, and whoever writes to ``.data``, leave the version as it was.
        if (
            self._engine is None
            or self._engine[0] != key
            or not (initial is None or self._engine[1].starts_from(initial))
        ):
            self._pool.clear()
            self._engine = (key, self.make_engine(self._like, initial))
        return self._engine[1]

    def __getstate__(self) -> dict[str, object]:
        # An engine belongs to this process and this copy of the parameters.
        return {**self.__dict__, "_engine": None}

    # ------------------------------------------------------------------ states

    def init_state(self, batch: int) -> InPlaceState:
        engine = self._engine_now()
        keep = self.first_memory is not None
        session = Session(engine, self.layout, batch, self._pool, keep_always=keep, indexing=self._indexing)
        weights = self._like.new_zeros(tuple(session.first.weights.shape))
        return InPlaceState(start(session, self.first_memory, weights), session.new_handle())

    def forward(self, interface: Tensor, state: InPlaceState) -> tuple[Tensor, InPlaceState]:
        return self.step(interface, state)

    def step(
        self, interface: Tensor, state: InPlaceState, valid: Tensor | None = None
    ) -> tuple[Tensor, InPlaceState]:
        session = state.handle.use()
        reads, weights = step(session, interface.to(self._like.dtype), state.weights, valid)
        return reads, InPlaceState(weights, session.new_handle())

    def snapshot(self, state: InPlaceState) -> InPlaceState:
        """A copy on a buffer of its own. It is cut off from the graph."""
        return InPlaceState(state.weights.detach(), state.handle.use().fork().new_handle())

    def detach(self, state: InPlaceState) -> InPlaceState:
        """Commit the steps so far; call it after their backward pass."""
        session = state.handle.use()
        session.commit()
        return InPlaceState(state.weights.detach(), state.handle)

    def reorder(self, state: InPlaceState, rows: Tensor) -> InPlaceState:
        raise ConfigError(
            f"{type(self).__name__} changes its memory in place, and cannot go on twice from one state.",
            "Search without alternatives: task.beam=1.",
        )

    # ------------------------------------------------------------------ looking inside

    def rows(self, state: InPlaceState, slots: Tensor | None = None) -> Tensor:
        return state.handle.use().contents(slots)

    def trace(self, state: InPlaceState) -> dict[str, Tensor]:
        return state.handle.use().traced()

    def vitals(self, interface: Tensor, state: InPlaceState) -> Vitals:
        return Vitals(
            {
                title.removesuffix(" weights"): Heads(weights, self.layout.slots, rows)
                for title, (rows, weights) in state.handle.use().looked().items()
            },
            self.gauges(interface, state),
        )

    def gauges(self, interface: Tensor, state: InPlaceState) -> dict[str, Tensor]:
        """How much heads write, and how much of it where they read before (the rest: to the oldest row)."""
        heads = self.layout.heads
        gates = torch.sigmoid(interface[:, -2 * heads :])
        return {"write_gate": gates[:, :heads], "write_where_read_gate": gates[:, heads:]}


def check_sizes(layout: Any) -> None:
    """Raise ConfigError for sizes that cannot be, naming the key."""
    at_least_one("memory", **layout._asdict())
    require(
        layout.sparsity <= layout.slots,
        f"memory.sparsity: {layout.sparsity} is not allowed with memory.slots={layout.slots}.",
        "A head can read at most every slot.",
    )
    require(
        layout.heads <= layout.slots,
        f"memory.heads: {layout.heads} is not allowed with memory.slots={layout.slots}.",
        "Each head recycles a slot of its own at every step.",
    )
