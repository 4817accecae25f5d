"""A plugin for mannlab: a ring-buffer memory and a task that asks for a sequence backwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot, softplus

from mannlab.contracts import Batch, Bits, Memory, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.draws import Draws
from mannlab.errors import require
from mannlab.registry import register
from mannlab.scoring import bit_score


class RingState(NamedTuple):
    """``memory[B, N, W]``; ``turn[B, N]``, 1 at the slot to write next; ``weights[B, N]``, last read."""

    memory: Tensor
    turn: Tensor
    weights: Tensor


@register("memory", "ring")
class RingMemory(Memory[RingState]):
    """Ring buffer: each step overwrites the oldest slot, and reads by content.

    Args:
        slots: N, number of rows.
        width: W, length of a row.
    """

    first_turn: Tensor

    def __init__(self, *, slots: int = 32, width: int = 16) -> None:
        super().__init__()
        require(slots >= 1, f"memory.slots: {slots} is not allowed.", "It must be at least 1.")
        require(width >= 1, f"memory.width: {width} is not allowed.", "It must be at least 1.")
        self.slots, self.width = slots, width
        self.interface_size = 2 * width + 1  # a word to write, a key to read with, its strength
        self.read_size = width
        self.register_buffer("first_turn", one_hot(torch.tensor(0), slots).float(), persistent=False)

    def init_state(self, batch: int) -> RingState:
        turn = self.first_turn.expand(batch, -1)
        return RingState(turn.new_full((batch, self.slots, self.width), 1e-6), turn, torch.zeros_like(turn))

    def forward(self, interface: Tensor, state: RingState) -> tuple[Tensor, RingState]:
        word, key, strength = interface.split([self.width, self.width, 1], dim=-1)
        memory = torch.where(state.turn[..., None] > 0, torch.tanh(word)[:, None], state.memory)
        likeness = cosine_similarity(memory, key[:, None], dim=-1)
        weights = torch.softmax(softplus(strength) * likeness, dim=-1)
        reads = torch.einsum("bn,bnw->bw", weights, memory)
        return reads, RingState(memory, state.turn.roll(1, dims=1), weights)

    def trace(self, state: RingState) -> dict[str, Tensor]:
        return {"read weights": state.weights[:, None], "write turn": state.turn[:, None]}


@register("task", "reverse")
class Reverse(Task):
    """Repeat a sequence of random bit vectors backwards, after a delimiter.

    Args:
        bits: width of each vector.
        max_length: longest sequence; lengths are uniform from 1.
        sequences: sequences in the validation set, and in the test set.
    """

    objective = Objective("bit_errors_per_sequence", "min", solved=0.1)

    def __init__(self, *, bits: int = 4, max_length: int = 8, sequences: int = 320) -> None:
        for key, value in {"bits": bits, "max_length": max_length, "sequences": sequences}.items():
            require(value >= 1, f"task.{key}: {value} is not allowed.", "It must be at least 1.")
        self.bits, self.max_length, self.sequences = bits, max_length, sequences
        self.spec = StreamSpec({"x": Vector(bits + 1)}, Bits(bits))

    def splits(self, stage: str) -> list[Split]:
        return [Split("train") if stage == "train" else Split(stage, self.sequences)]

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        steps = 2 * self.max_length + 1
        lengths = draws.integers(start, count, 1, self.max_length, "length")
        words = draws.bits(start, count, self.max_length * self.bits).reshape(count, -1, self.bits)
        x, y = np.zeros((count, steps, self.bits + 1), "f4"), np.zeros((count, steps, self.bits), "f4")
        scored, valid = np.zeros((count, steps), "f4"), np.zeros((count, steps), "f4")
        for i, n in enumerate(lengths):
            x[i, :n, :-1] = words[i, :n]
            x[i, n, -1] = 1
            y[i, n + 1 : 2 * n + 1] = words[i, :n][::-1]
            scored[i, n + 1 : 2 * n + 1] = 1
            valid[i, : 2 * n + 1] = 1
        inputs, targets, asked, real = (torch.from_numpy(array) for array in (x, y, scored, valid))
        return Batch({"x": inputs}, targets, asked, real)

    def score(self, logits: Tensor, batch: Batch) -> Score:
        return bit_score(logits, batch)
