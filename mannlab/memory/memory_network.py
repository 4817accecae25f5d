"""End-to-end memory network of Sukhbaatar et al. 2015 (arXiv 1503.08895)."""

from __future__ import annotations

import logging
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts import Heads, Memory, Vitals
from mannlab.errors import at_least_one, require
from mannlab.kernels.memory_network import Hops, attend
from mannlab.registry import register

log = logging.getLogger(__name__)

DEVIATION = 0.1  # of what is learnt, at first (section 4.2)
SOFTMAX, LINEAR, LAST_LINEAR = 0, 1, 2


class MemoryNetworkState(NamedTuple):
    """The slots so far, at most N, the newest last.

    Attributes:
        written: ``[B, S, M, W]``, the M embeddings of each slot.
        ages: ``int64[B, S]``, how many slots are newer; N or more: there is nothing here.
    """

    written: Tensor
    ages: Tensor


@register("memory", "memory_network")
class MemoryNetwork(Memory[MemoryNetworkState]):
    """End-to-end memory network: all that was said so far, read in several hops (Sukhbaatar et al. 2015).

    Each step first reads and then writes one slot; nothing is ever changed. The controller says a query u
    and the embeddings of the slot to write: the model's layer that makes the interface holds the paper's
    matrices, B for the query and A and C for keys and values. With adjacent tying B is A_1: what a step
    would write as its first key is what it asks with; answers have a matrix of their own, which the paper
    ties to the last C. A hop compares u with all keys, sums the
    values by a softmax over the scores, and adds the sum to u; what is read is u after the last hop. Keys
    and values carry a learned vector for their age.

    Reads depend on earlier steps, but need not reach the controller: as in the paper they do not
    (``model.feedback=null``), and then all steps of a sequence run at once. ``model.feedback=true`` feeds
    them back, step by step.

    Args:
        slots: N, how many of the last slots are kept.
        width: W, length of a query, a key and a value.
        hops: K.
        tying: ``adjacent``: the values of a hop are the keys of the next, the query is the first key, K + 1
            embeddings a slot;
            ``layer_wise``: all hops have the same keys and values, and u passes through a matrix H between
            them; ``key_value``: the same keys and values, and ``u + o`` passes through a matrix R_k of
            each hop (Miller et al. 2016, arXiv 1606.03126).
        temporal: learn vectors for the ages of slots, counted from the newest.
        noise: in training, how likely an empty slot comes before a step: nothing to read, but all that is
            older counts as older by one, so that exact ages are not learnt by heart.
        linear_start: train without the softmax at first, until the loss in validation stops falling, and at
            most for so many validations; 0: with the softmax from the beginning.
        patience: validations in a row without a lower loss that end the linear start.
        rectify: components of u that pass through a ReLU after each hop: ``none``, ``half`` or ``all``.

    Raises:
        ConfigError: an impossible size, or noise outside [0, 1).
    """

    feeds_back = False
    slot_a_step = True
    resizable = frozenset({"slots"})
    phase: Tensor
    lowest: Tensor
    waited: Tensor
    validations: Tensor
    _like: Tensor

    def __init__(
        self,
        *,
        slots: int = 50,
        width: int = 50,
        hops: int = 3,
        tying: Literal["adjacent", "layer_wise", "key_value"] = "adjacent",
        temporal: bool = True,
        noise: float = 0.0,
        linear_start: int = 0,
        patience: int = 1,
        rectify: Literal["none", "half", "all"] = "none",
    ) -> None:
        super().__init__()
        at_least_one("memory", slots=slots, width=width, hops=hops, patience=patience)
        require(
            linear_start >= 0,
            f"memory.linear_start: {linear_start} is not allowed.",
            "It is a number of validations, at least 0.",
        )
        require(0 <= noise < 1, f"memory.noise: {noise} is not allowed.", "It must be in [0, 1).")
        self.slots, self.width, self.noise, self.tying = slots, width, noise, tying
        self.linear_start, self.patience = linear_start, patience
        adjacent = tying == "adjacent"
        self.pairs = [(hop, hop + 1) if adjacent else (0, 1) for hop in range(hops)]
        self.embeddings = hops + 1 if adjacent else 2
        self.rectified = {"none": 0, "half": width // 2, "all": width}[rectify]
        self.query_size = 0 if adjacent else width  # of its own
        self.interface_size = self.query_size + self.embeddings * width
        self.read_size = width
        self.ages = nn.Parameter(torch.randn(self.embeddings, slots, width) * DEVIATION) if temporal else None
        count = {"adjacent": 0, "layer_wise": 1, "key_value": hops}[tying]
        self.matrices = nn.ParameterList(torch.eye(width) for _ in range(count))
        self.register_buffer("phase", torch.tensor(LINEAR if linear_start else SOFTMAX))
        self.register_buffer("lowest", torch.tensor(math.inf))
        self.register_buffer("waited", torch.tensor(0))
        self.register_buffer("validations", torch.tensor(0))
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def linear(self) -> bool:
        """Whether weights are the scores themselves, without a softmax."""
        # Without a linear start no device is asked.
        return self.linear_start > 0 and int(self.phase) != SOFTMAX

    def init_state(self, batch: int) -> MemoryNetworkState:
        written = self._like.new_zeros(batch, 0, self.embeddings, self.width)
        return MemoryNetworkState(written, written.new_zeros(batch, 0, dtype=torch.int64))

    def forward(self, interface: Tensor, state: MemoryNetworkState) -> tuple[Tensor, MemoryNetworkState]:
        return self.step(interface, state)

    def step(
        self, interface: Tensor, state: MemoryNetworkState, valid: Tensor | None = None
    ) -> tuple[Tensor, MemoryNetworkState]:
        reads, state = self._part(
            interface.unsqueeze(1), state, None if valid is None else valid.unsqueeze(1), self._hops()
        )
        return reads.squeeze(1), state

    def sequence(
        self, interface: Tensor, state: MemoryNetworkState, valid: Tensor | None = None
    ) -> tuple[Tensor, MemoryNetworkState]:
        # In parts as long as the memory, so that time and room grow with T, not with its square.
        hops, reads = self._hops(), []
        for start in range(0, interface.shape[1], self.slots):
            part = slice(start, start + self.slots)
            here = None if valid is None else valid[:, part]
            read, state = self._part(interface[:, part], state, here, hops)
            reads.append(read)
        return torch.cat(reads, dim=1), state

    def answers(
        self, interface: Tensor, state: MemoryNetworkState, valid: Tensor | None, asked: Tensor
    ) -> Tensor:
        counts = asked.sum(1, keepdim=True)
        most = int(counts.max())
        if most > self.slots:
            return super().answers(interface, state, valid, asked)
        # The asked steps of each row, in their order, then others.
        steps = asked.long().argsort(dim=1, descending=True, stable=True)[:, :most]
        query, written, times, every = self._clocked(interface, state)
        ages = times.gather(1, steps).unsqueeze(2) - every.unsqueeze(1) - 1
        query = query.gather(1, steps.unsqueeze(2).expand(-1, -1, self.width))
        reads = attend(query, written, ages, self._hops())
        return reads[torch.arange(most, device=steps.device) < counts]

    def _hops(self) -> Hops:
        if self.training and self.linear_start and int(self.phase) == LAST_LINEAR:
            self.end_linear_start()
        matrices = list(self.matrices)
        if self.tying == "layer_wise":
            matrices = matrices * len(self.pairs)
        return Hops(
            pairs=self.pairs,
            temporal=self.ages,
            matrices=matrices,
            after=self.tying == "key_value",
            linear=self.linear,
            rectified=self.rectified,
            slots=self.slots,
        )

    def trace_sequence(
        self, interface: Tensor, state: MemoryNetworkState, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As of :class:`Memory`: a head for each hop, and a place for each slot ever written."""
        shown: list[Tensor] = []
        before, steps = state.ages.shape[1], interface.shape[1]
        self._part(interface, state, valid, self._hops(), shown)
        # Through the linear start they may be anything.
        reading = torch.stack(shown, dim=2).clamp(0, 1)
        own = torch.eye(steps, before + steps, device=reading.device).roll(before, dims=1)
        writing = own[None, :, None].expand(len(reading), -1, -1, -1)
        return {"read weights": reading, "write weights": writing}

    def vitals_sequence(
        self, interface: Tensor, state: MemoryNetworkState, valid: Tensor | None = None
    ) -> Vitals:
        # Every step writes one slot of its own, which says nothing.
        shown = self.trace_sequence(interface, state, valid)["read weights"]
        return Vitals({"read": Heads(shown, shown.shape[-1])}, {})

    def contents(self, state: MemoryNetworkState) -> dict[str, Tensor]:
        """The embeddings of the slots, the newest last: keys of the first hop and values of the last."""
        return {"keys": state.written[:, :, 0], "values": state.written[:, :, -1]}

    def rows_sequence(
        self,
        interface: Tensor,
        state: MemoryNetworkState,
        slots: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The last hop's values at places as in :meth:`trace_sequence`, zeros before they are written."""
        said = interface[..., -self.width :]
        values = torch.cat([state.written[:, :, -1], said], dim=1)[:, slots]
        steps = torch.arange(interface.shape[1], device=slots.device)
        there = slots <= steps.unsqueeze(1) + state.written.shape[1]
        return values.unsqueeze(1) * there[:, :, None]

    def _part(
        self,
        interface: Tensor,
        state: MemoryNetworkState,
        valid: Tensor | None,
        hops: Hops,
        shown: list[Tensor] | None = None,
    ) -> tuple[Tensor, MemoryNetworkState]:
        """Some steps at once: ``interface[B, T, I]`` to ``reads[B, T, W]`` and the next state."""
        query, written, times, every = self._clocked(interface, state)
        reads = attend(query, written, times.unsqueeze(2) - every.unsqueeze(1) - 1, hops, shown)
        return reads, self._last(torch.stack(written, 2), every, state.ages.shape[1], valid)

    def _clocked(
        self, interface: Tensor, state: MemoryNetworkState
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor]:
        """What T steps ask and what there is once they have written.

        Returns:
            ``query[B, T, W]``; M embeddings ``[B, S + T, W]``; when each step is, ``int64[B, T]``, and when
            each slot was written, ``int64[B, S + T]``, by a clock that ticks once for each slot, empty or
            not: a step reads at its time, and writes then.
        """
        # One node, whose backward pass fills each part of the gradient once.
        parts = interface.unflatten(-1, (-1, self.width)).unbind(2)
        query, said = parts[0], parts[1:] if self.query_size else parts
        times = torch.arange(interface.shape[1], device=interface.device).expand(interface.shape[:2])
        if self.training and self.noise:
            empty = torch.rand(interface.shape[:2], device=interface.device) < self.noise
            times = times + empty.cumsum(1)
        if state.ages.shape[1] == 0:
            return query, said, times, times
        before = state.written.unbind(2)
        written = tuple(torch.cat(pair, dim=1) for pair in zip(before, said, strict=True))
        return query, written, times, torch.cat([-1 - state.ages, times], dim=1)

    def _last(self, written: Tensor, times: Tensor, before: int, valid: Tensor | None) -> MemoryNetworkState:
        """The last N slots, the padded steps left out: ``before`` slots were there before these steps."""
        most = min(self.slots, times.shape[1])
        if valid is None:
            written, times = written[:, -most:], times[:, -most:]
            return MemoryNetworkState(written, self._aged(times[:, -1:] - times))
        ends = before + valid.bool().sum(1, keepdim=True)
        places = ends - most + torch.arange(most, device=times.device)
        rows = torch.arange(len(times), device=times.device).unsqueeze(1)
        there = places >= 0
        places = places.clamp_min(0)
        kept = times[rows, places]
        # Where no step was real the newest slot is an old one, which is not newer by that.
        newest = torch.where(ends > before, kept[:, -1:], -1)
        ages = torch.where(there, newest - kept, self.slots)
        return MemoryNetworkState(written[rows, places], self._aged(ages))

    def _aged(self, ages: Tensor) -> Tensor:
        return ages.clamp_max(self.slots)

    # ------------------------------------------------------------------ linear start

    def end_validation(self, loss: float) -> None:
        """During the linear start, see whether the loss still falls; the softmax comes with the next step.

        Not at once: what is saved now must be what was measured.
        """
        if int(self.phase) != LINEAR:
            return
        self.validations += 1
        self.waited += 1
        found = torch.tensor(loss).to(
            self.lowest
        )  # rounded as the lowest is, or the same loss may seem lower
        if found < self.lowest:
            self.lowest.copy_(found)
            self.waited.zero_()
        if int(self.waited) >= self.patience or int(self.validations) >= self.linear_start:
            self.phase.fill_(LAST_LINEAR)

    def end_linear_start(self) -> None:
        """From here on, weights are a softmax over the scores."""
        self.phase.fill_(SOFTMAX)
        log.info("The linear start ends: from here on the memory is read through a softmax.")
