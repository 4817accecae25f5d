"""Memory with least recently used access: Santoro et al. 2016 (arXiv 1605.06065)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from mannlab.contracts import Memory
from mannlab.errors import at_least_one, require
from mannlab.memory import addressing
from mannlab.memory._rows import first_rows, in_full_precision, on_first_slot
from mannlab.registry import register

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import MemoryCell


class LRUAState(NamedTuple):
    """What the last step left.

    Attributes:
        memory: ``[B, N, W]``.
        reading: weights of the read heads, ``[B, R, N]``; each sums to 1.
        writing: weights of the write heads, ``[B, R, N]``; to be looked at: without gradient.
        usage: ``[B, N]``, at least 0; without gradient, as is the choice of rows that is made by it.
    """

    memory: Tensor
    reading: Tensor
    writing: Tensor
    usage: Tensor


class LRUAInterface(NamedTuple):
    """What the controller says in one step, after its activations."""

    key: Tensor  # [B, R, W], in (-1, 1)
    gate: Tensor  # [B, R], in (0, 1)
    add: Tensor  # [B, R, W], in (-1, 1)
    strength: Tensor  # [B, R], at least 1


@register("memory", "lrua")
class LRUAMemory(Memory[LRUAState]):
    """MANN: writes to the rows read last or least used, reads by content alone (Santoro et al. 2016).

    A step t (sections 3.1 and 3.2 of the paper); each head reads and writes:

    1. *Least used.* The ``read_heads`` rows whose usage of t - 1 is smallest have indicator 1, the others 0.
       Among rows of equal usage the lower ones come first, so there are always just as many.
    2. *Write weights* of a head: ``gate`` times its read weights of t - 1 plus ``1 - gate`` times the
       indicator. All heads share the indicator.
    3. *Write.* The row that is least used is set to zero; then every head adds its word, in proportion to
       its write weights. The word is the head's key, or what ``separate_add`` says.
    4. *Read weights* of a head: softmax over the cosines of its key with the rows as they are now, after
       the write, times its strength (1 in the paper). Reads are the weighted sums of those rows.
    5. *Usage* is ``decay`` times that of t - 1 plus all read and write weights of t. It only
       chooses rows, so no gradient passes through it.

    The gate is the sigmoid of a number that the controller says for each head and step, as in public
    implementations; the paper calls it a learned scalar. Keys and words are tanh of what the controller
    says, also as there. Before the first step all heads are on slot 0, which counts as used.

    Args:
        slots: N, number of rows.
        width: W, length of a row.
        read_heads: number of heads; each writes, too.
        decay: how much of the usage is left after a step, between 0 and 1; gamma in the paper.
        separate_add: the controller says the word to write, beside the key; False: the key is written.
        strength: the controller says how much the cosines count, one number of at least 1 for each head
            (oneplus, as a DNC's); False: 1, so no row is read more than 7.4 times (e squared) as much as
            another.
        init: memory before the first step: ``constant`` (1e-6), ``learned`` (one row of parameters per
            slot) or ``random`` (fixed normal noise, drawn once and kept in checkpoints).

    Raises:
        ConfigError: a size below 1, more heads than slots, or a decay outside [0, 1].
    """

    resizable = frozenset({"slots"})
    first_memory: Tensor
    first_weights: Tensor

    def __init__(
        self,
        *,
        slots: int = 128,
        width: int = 40,
        read_heads: int = 4,
        decay: float = 0.99,
        separate_add: bool = False,
        strength: bool = False,
        init: Literal["constant", "learned", "random"] = "constant",
    ) -> None:
        super().__init__()
        at_least_one("memory", slots=slots, width=width, read_heads=read_heads)
        require(
            read_heads <= slots,
            f"memory.read_heads: {read_heads} is not allowed with memory.slots={slots}.",
            "There must be a row for each head to recycle: at most as many heads as slots.",
        )
        require(
            0 <= decay <= 1,
            f"memory.decay: {decay} is not allowed.",
            "It must be between 0 and 1: the part of the usage that is left after a step.",
        )
        self.slots, self.width, self.read_heads = slots, width, read_heads
        self.decay, self.separate_add, self.strength = decay, separate_add, strength
        self.read_size = read_heads * width
        self._fields = [self.read_size, read_heads, self.read_size * separate_add, read_heads * strength]
        self.interface_size = sum(self._fields)
        first_rows(self, init, slots, width)
        self.register_buffer("first_weights", on_first_slot(read_heads, slots), persistent=False)

    def init_state(self, batch: int) -> LRUAState:
        weights = self.first_weights.expand(batch, -1, -1)
        memory = self.first_memory.expand(batch, -1, -1)
        return LRUAState(memory, weights, torch.zeros_like(weights), weights[:, 0])

    def fields(self, interface: Tensor) -> LRUAInterface:
        """Split ``interface[B, I]`` into named fields and apply their activations."""
        key, gate, add, strength = interface.split(self._fields, dim=-1)
        key, gate = torch.tanh(key).view(-1, self.read_heads, self.width), torch.sigmoid(gate)
        return LRUAInterface(
            key,
            gate,
            torch.tanh(add).view_as(key) if self.separate_add else key,
            addressing.oneplus(strength) if self.strength else torch.ones_like(gate),
        )

    @in_full_precision
    def forward(self, interface: Tensor, state: LRUAState) -> tuple[Tensor, LRUAState]:
        said = self.fields(interface)
        least = state.usage.sort(dim=1, stable=True).indices[:, : self.read_heads]
        indicator = torch.zeros_like(state.usage).scatter(1, least, 1.0)
        writing = addressing.interpolate(state.reading, indicator.unsqueeze(1), said.gate)
        kept = torch.ones_like(state.usage).scatter(1, least[:, :1], 0.0)
        memory = torch.baddbmm(state.memory * kept.unsqueeze(-1), writing.transpose(1, 2), said.add)
        reading = addressing.content_weights(said.key, memory, said.strength)
        reads = addressing.read(memory, reading)
        written = writing.detach()
        usage = self.decay * state.usage + (reading.detach() + written).sum(1)
        return reads.flatten(1), LRUAState(memory, reading, written, usage)

    def fused(self, state: LRUAState) -> tuple[MemoryCell, Callable[[Sequence[Tensor]], LRUAState]] | None:
        # Compiles on import.
        from mannlab.kernels.lrua.cell import LRUACell

        cell = LRUACell(*state, fields=self._fields, decay=self.decay)
        return cell, lambda last: LRUAState(*last)

    def rows(self, state: LRUAState, slots: Tensor | None = None) -> Tensor:
        return state.memory if slots is None else state.memory[:, slots]

    def trace(self, state: LRUAState) -> dict[str, Tensor]:
        return {"read weights": state.reading, "write weights": state.writing}

    def gauges(self, interface: Tensor, state: LRUAState) -> dict[str, Tensor]:
        """How much of what is written goes where the head has just read (the rest: to the least used row).

        And the strength of reads, where there is one.
        """
        said = self.fields(interface)
        strength = {"read_strength": said.strength} if self.strength else {}
        return {"write_where_read_gate": said.gate, **strength}
