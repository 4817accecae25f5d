"""Differentiable Neural Computer: Graves et al. 2016 (Nature 538, 471-476), with its later repairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mannlab.contracts import Memory
from mannlab.errors import at_least_one, require
from mannlab.kernels.dnc.layout import LINK_FLOOR, MASK_FLOOR, DNCInterface, DNCState
from mannlab.memory import addressing
from mannlab.memory._rows import first_rows, in_full_precision
from mannlab.registry import register

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import MemoryCell


@register("memory", "dnc")
class DNCMemory(Memory[DNCState]):
    """Differentiable Neural Computer: frees rows, and follows the order of writes (Graves et al. 2016).

    One head writes, ``read_heads`` read. A step t (Methods of the paper):

    1. *Usage.* What was written at t - 1 is in use; rows read at t - 1 are freed as the free gates say.
    2. *Allocation.* Rows are sorted by usage; the least used gets most of the weight, the next what is left,
       and so on. Gradients go through usages, not through the order. Of rows equally used the lower is first.
    3. *Write.* Weights are, by gates, allocation's or those of content in the memory of t - 1. Erase, add.
    4. *Links.* A matrix remembers which row was written after which.
    5. *Read.* Weights of each head are a mixture of content's in the new memory and of those that the links
       give backward and forward from where it read at t - 1.

    Keys and words are what the controller says, as it is: there is no activation, as in the paper.

    ``masking``, ``deallocation`` and ``sharpness`` are the repairs of Csordas and Schmidhuber 2019 (arXiv
    1904.10278). In their bAbI results the first two together do best, and are on here; sharpness, with
    de-allocation, is what solved their long repeat copy. ``links=false`` leaves out links and read modes: the
    content-based unit of Franke et al. 2018 (ADNC). The DNC of the paper is ``masking=false,
    deallocation=false``.

    Args:
        slots: N, number of rows.
        width: W, length of a row.
        read_heads: R, number of heads that read.
        links: keep temporal links; a step then costs time and memory in proportion to N squared.
        masking: each head says which components of rows its key is to be compared with.
        deallocation: rows that are freed are erased, so that content does not find them any more.
        sharpness: weights that links give are raised to a power that the controller says, and renormalised.
        init: memory before the first step: ``constant`` (1e-6), ``learned`` (one row of parameters per
            slot) or ``random`` (fixed normal noise, drawn once and kept in checkpoints).

    Raises:
        ConfigError: a size below 1, or sharpness without links.
    """

    resizable = frozenset({"slots"})
    first_memory: Tensor
    off_diagonal: Tensor

    def __init__(
        self,
        *,
        slots: int = 128,
        width: int = 32,
        read_heads: int = 4,
        links: bool = True,
        masking: bool = True,
        deallocation: bool = True,
        sharpness: bool = False,
        init: Literal["constant", "learned", "random"] = "constant",
    ) -> None:
        super().__init__()
        at_least_one("memory", slots=slots, width=width, read_heads=read_heads)
        require(
            links or not sharpness,
            "memory.sharpness: true is not allowed with memory.links=false.",
            "It sharpens what links give: use memory.links=true, or memory.sharpness=false.",
        )
        self.slots, self.width, self.read_heads = slots, width, read_heads
        self.links, self.masking, self.deallocation, self.sharpness = links, masking, deallocation, sharpness
        # In the order of DNCInterface; what is switched off has no width.
        self._fields = [
            read_heads * width,
            read_heads,
            width,
            1,
            width,
            width,
            read_heads,
            1,
            1,
            3 * read_heads * links,
            read_heads * width * masking,
            width * masking,
            2 * read_heads * sharpness,
        ]
        self.interface_size = sum(self._fields)
        self.read_size = read_heads * width
        first_rows(self, init, slots, width)
        self.register_buffer("off_diagonal", 1 - torch.eye(slots if links else 0), persistent=False)

    def init_state(self, batch: int) -> DNCState:
        memory = self.first_memory.expand(batch, -1, -1)
        nothing = memory.new_zeros(batch, self.slots)
        linked = len(self.off_diagonal)
        return DNCState(
            memory=memory,
            usage=nothing,
            reading=memory.new_zeros(batch, self.read_heads, self.slots),
            writing=nothing,
            precedence=memory.new_zeros(batch, linked),
            links=memory.new_zeros(batch, linked, linked),
        )

    def fields(self, interface: Tensor) -> DNCInterface:
        """Split ``interface[B, I]`` into named fields and apply their activations."""
        said = interface.split(self._fields, dim=-1)
        read_key, read_strength, write_key, write_strength, erase, add = said[:6]
        free, allocation_gate, write_gate, modes, read_mask, write_mask, sharpness = said[6:]
        heads = (-1, self.read_heads)
        return DNCInterface(
            read_key=read_key.view(*heads, self.width),
            read_strength=addressing.oneplus(read_strength),
            write_key=write_key.unsqueeze(1),
            write_strength=addressing.oneplus(write_strength),
            erase=torch.sigmoid(erase).unsqueeze(1),
            add=add.unsqueeze(1),
            free=torch.sigmoid(free),
            allocation_gate=torch.sigmoid(allocation_gate),
            write_gate=torch.sigmoid(write_gate),
            modes=torch.softmax(modes.view(*heads, 3), dim=-1) if self.links else None,
            read_mask=self._mask(read_mask.view(*heads, self.width)) if self.masking else None,
            write_mask=self._mask(write_mask.unsqueeze(1)) if self.masking else None,
            sharpness=addressing.oneplus(sharpness.view(*heads, 2)) if self.sharpness else None,
        )

    @staticmethod
    def _mask(said: Tensor) -> Tensor:
        return MASK_FLOOR + (1 - MASK_FLOOR) * torch.sigmoid(said)

    @in_full_precision
    def forward(self, interface: Tensor, state: DNCState) -> tuple[Tensor, DNCState]:
        said = self.fields(interface)
        # Not torch's product, whose backward pass waits for the device.
        retained = 1 - said.free[:, :1] * state.reading[:, 0]
        for head in range(1, self.read_heads):
            retained = retained * (1 - said.free[:, head : head + 1] * state.reading[:, head])
        usage = (state.usage + state.writing - state.usage * state.writing) * retained
        found = _content(said.write_key, state.memory, said.write_strength, said.write_mask).squeeze(1)
        writing = said.write_gate * torch.lerp(found, addressing.allocation(usage), said.allocation_gate)

        memory = state.memory * retained.unsqueeze(-1) if self.deallocation else state.memory
        memory = addressing.erase_add(memory, writing.unsqueeze(1), said.erase, said.add)
        links, precedence = state.links, state.precedence
        reading = _content(said.read_key, memory, said.read_strength, said.read_mask)
        if said.modes is not None:
            links, precedence = self._linked(state, writing)
            reading = _followed(reading, state.reading, links, said.modes, said.sharpness)
        reads = addressing.read(memory, reading)
        return reads.flatten(1), DNCState(memory, usage, reading, writing, precedence, links)

    def _linked(self, state: DNCState, writing: Tensor) -> tuple[Tensor, Tensor]:
        """Links and precedence after a write by ``writing[B, N]``."""
        after, before = writing.unsqueeze(2), writing.unsqueeze(1)
        kept = (1 - after - before) * state.links
        links = torch.addcmul(kept, after, state.precedence.unsqueeze(1)) * self.off_diagonal
        precedence = (1 - writing.sum(1, keepdim=True)) * state.precedence + writing
        return links, precedence

    def fused(self, state: DNCState) -> tuple[MemoryCell, Callable[[Sequence[Tensor]], DNCState]] | None:
        # Compiles on import.
        from mannlab.kernels.dnc.cell import DNCCell

        return DNCCell(state, self._fields, self.deallocation), lambda last: DNCState(*last)

    def rows(self, state: DNCState, slots: Tensor | None = None) -> Tensor:
        return state.memory if slots is None else state.memory[:, slots]

    def trace(self, state: DNCState) -> dict[str, Tensor]:
        return {"read weights": state.reading, "write weights": state.writing.unsqueeze(1)}

    def gauges(self, interface: Tensor, state: DNCState) -> dict[str, Tensor]:
        """Gates, read modes, and usage (the mean over rows)."""
        said = self.fields(interface)
        found = {
            "write_gate": said.write_gate,
            "allocation_gate": said.allocation_gate,
            "free_gate": said.free,
            "usage": state.usage,
        }
        if said.modes is not None:
            modes = ("backward_mode", "content_mode", "forward_mode")
            found |= dict(zip(modes, said.modes.unbind(-1), strict=True))
        return found


def _content(keys: Tensor, memory: Tensor, strength: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return addressing.content_weights(keys, memory, strength)
    similar = addressing.masked_similarity(keys, memory, mask)
    return torch.softmax(similar * strength.unsqueeze(-1), dim=-1)


def _followed(
    content: Tensor, previous: Tensor, links: Tensor, modes: Tensor, sharpness: Tensor | None
) -> Tensor:
    """Read weights ``[B, R, N]``: content's, and where ``links`` lead from the ``previous`` ones."""
    backward, forward = torch.matmul(previous, links), torch.matmul(previous, links.transpose(1, 2))
    if sharpness is not None:
        exponents = sharpness.unsqueeze(-1)
        backward = torch.softmax((backward + LINK_FLOOR).log() * exponents[:, :, 0], dim=-1)
        forward = torch.softmax((forward + LINK_FLOOR).log() * exponents[:, :, 1], dim=-1)
    shares = modes.unsqueeze(-1)
    return shares[:, :, 0] * backward + shares[:, :, 1] * content + shares[:, :, 2] * forward
