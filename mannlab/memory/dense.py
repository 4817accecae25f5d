"""Dense memory: the Neural Turing Machine of Graves, Wayne and Danihelka 2014 (arXiv 1410.5401)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mannlab.contracts import Memory
from mannlab.errors import at_least_one, require
from mannlab.memory import addressing
from mannlab.memory._rows import first_rows, in_full_precision
from mannlab.registry import register

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import MemoryCell

FIRST = 6.0


class DenseState(NamedTuple):
    """Attributes: ``memory[B, N, W]``; ``weights[B, H, N]``, those of the read heads first."""

    memory: Tensor
    weights: Tensor


class DenseInterface(NamedTuple):
    """What the controller says in one step, after its activations; H heads, V of which write."""

    key: Tensor  # [B, H, W]
    strength: Tensor  # [B, H], > 0
    gate: Tensor  # [B, H], in (0, 1)
    shift: Tensor  # [B, H, S], sums to 1
    exponent: Tensor  # [B, H], >= 1
    erase: Tensor  # [B, V, W], in (0, 1)
    add: Tensor  # [B, V, W]


@register("memory", "dense")
class DenseMemory(Memory[DenseState]):
    """Neural Turing Machine: content and location addressing over every slot (Graves et al. 2014).

    A step addresses all heads on the memory as the last step left it, reads, then writes: erase by
    all write heads, then add by all (section 3 of the paper). Weights pass through content softmax
    (eq. 5), interpolation (7), circular shift (8) and sharpening (9). Keys and add vectors are tanh of what
    the controller says, as in public implementations; the paper does not bound them.

    Args:
        slots: N, number of rows.
        width: W, length of a row.
        read_heads: number of heads that read.
        write_heads: number of heads that write.
        max_shift: a head may move this many slots either way in a step; 0 disables location addressing.
        init: memory before the first step: ``constant`` (1e-6, converges fastest: Collier and Beel
            2018, arXiv 1807.08518), ``learned`` (one row of parameters per slot) or ``random`` (fixed
            normal noise, drawn once and kept in checkpoints).

    Raises:
        ConfigError: a size below 1, or shifts wider than the memory.
    """

    first_memory: Tensor

    def __init__(
        self,
        *,
        slots: int = 128,
        width: int = 20,
        read_heads: int = 1,
        write_heads: int = 1,
        max_shift: int = 1,
        init: Literal["constant", "learned", "random"] = "constant",
    ) -> None:
        super().__init__()
        at_least_one("memory", slots=slots, width=width, read_heads=read_heads, write_heads=write_heads)
        require(
            max_shift >= 0 and 2 * max_shift + 1 <= slots,
            f"memory.max_shift: {max_shift} is not allowed with memory.slots={slots}.",
            f"It must be between 0 and {(slots - 1) // 2}: the shifts may not reach round the whole memory.",
        )
        self.slots, self.width = slots, width
        self.read_heads, self.write_heads = read_heads, write_heads
        self.heads = read_heads + write_heads
        self.shifts = 2 * max_shift + 1
        self._fields = [
            self.heads * width,
            self.heads,
            self.heads,
            self.heads * self.shifts,
            self.heads,
            write_heads * width,
            write_heads * width,
        ]
        self.interface_size = sum(self._fields)
        self.read_size = read_heads * width
        first_rows(self, init, slots, width)
        # Heads start on slot 0: a place to walk from is what location addressing needs first.
        self.first_weights = nn.Parameter(
            addressing.one_hot_logits(slots, 0, sharpness=FIRST).repeat(self.heads, 1)
        )
        self.first_reads = nn.Parameter(torch.zeros(self.read_size))

    def init_state(self, batch: int) -> DenseState:
        memory = self.first_memory.expand(batch, -1, -1)
        weights = torch.softmax(self.first_weights, dim=-1).expand(batch, -1, -1)
        return DenseState(memory, weights)

    def initial_reads(self, batch: int, like: Tensor) -> Tensor:
        return self.first_reads.expand(batch, -1)

    def fields(self, interface: Tensor) -> DenseInterface:
        """Split ``interface[B, I]`` into named fields and apply their activations."""
        batch = interface.shape[0]
        key, strength, gate, shift, exponent, erase, add = interface.split(self._fields, dim=-1)
        return DenseInterface(
            key=torch.tanh(key).view(batch, self.heads, self.width),
            strength=softplus(strength),
            gate=torch.sigmoid(gate),
            shift=torch.softmax(shift.view(batch, self.heads, self.shifts), dim=-1),
            exponent=1 + softplus(exponent),
            erase=torch.sigmoid(erase).view(batch, self.write_heads, self.width),
            add=torch.tanh(add).view(batch, self.write_heads, self.width),
        )

    @in_full_precision
    def forward(self, interface: Tensor, state: DenseState) -> tuple[Tensor, DenseState]:
        said = self.fields(interface)
        content = addressing.content_weights(said.key, state.memory, said.strength)
        gated = addressing.interpolate(content, state.weights, said.gate)
        shifted = addressing.circular_shift(gated, said.shift)
        weights = addressing.sharpen(shifted, said.exponent)
        reading, writing = weights.split([self.read_heads, self.write_heads], dim=1)
        reads = addressing.read(state.memory, reading)
        memory = addressing.erase_add(state.memory, writing, said.erase, said.add)
        return reads.flatten(1), DenseState(memory, weights)

    def fused(self, state: DenseState) -> tuple[MemoryCell, Callable[[Sequence[Tensor]], DenseState]] | None:
        # Compiles on import.
        from mannlab.kernels.ntm.cell import DenseCell

        cell = DenseCell(state.memory, state.weights, self.write_heads, self.shifts)
        return cell, lambda last: DenseState(*last)

    def on_gpu(
        self, state: DenseState
    ) -> Callable[[Tensor, DenseState, Tensor | None], tuple[Tensor, DenseState]] | None:
        from mannlab.kernels.ntm import gpu

        if not gpu.serves(state.memory) or state.weights.dtype != state.memory.dtype:
            return None
        sizes = {"writers": self.write_heads, "shifts": self.shifts}

        def step(interface: Tensor, state: DenseState, valid: Tensor | None) -> tuple[Tensor, DenseState]:
            reads, *after = gpu.ntm_step(interface, state.memory, state.weights, valid, **sizes)
            return reads, DenseState(*after)

        return step

    def rows(self, state: DenseState, slots: Tensor | None = None) -> Tensor:
        return state.memory if slots is None else state.memory[:, slots]

    def trace(self, state: DenseState) -> dict[str, Tensor]:
        reading, writing = state.weights.split([self.read_heads, self.write_heads], dim=1)
        return {"read weights": reading, "write weights": writing}

    def gauges(self, interface: Tensor, state: DenseState) -> dict[str, Tensor]:
        """How far heads look by content (the rest: from where they were), and how much is erased."""
        said = self.fields(interface)
        reading, writing = said.gate.split([self.read_heads, self.write_heads], dim=1)
        return {"read_content_gate": reading, "write_content_gate": writing, "erase": said.erase}
