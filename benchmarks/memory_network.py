"""The memory network on questions after a story: a training step, beside a textbook's version of the model.

    python benchmarks/memory_network.py          # under a minute

The shape is bAbI's, all tasks together: batches of questions, each after as many statements as its story
has (24 on average), 177 words, width 100, 3 hops, adjacent tying. The textbook has a sentence embedded word
by word in each hop and every memory padded to 50 statements, as public implementations do. What is compared
is measured in turns in one run; each figure is the least of its rounds. Prints a table; writes
``memory_network.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from _measure import against_textbook, in_turns
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mannlab.contracts import Bag, Classes, StreamSpec
from mannlab.model import MANN

WORDS, ANSWERS, LONGEST, WIDTH, SLOTS, HOPS, NOISE = 177, 160, 11, 100, 50, 3, 0.1


class Textbook(nn.Module):
    """Sukhbaatar et al. 2015 in plain torch: 3 hops, adjacent tying, position encoding, temporal vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.ModuleList(nn.Embedding(WORDS + 1, WIDTH, padding_idx=0) for _ in range(HOPS + 1))
        self.ages = nn.Parameter(torch.randn(HOPS + 1, SLOTS, WIDTH) * 0.1)
        self.out = nn.Linear(WIDTH, ANSWERS)
        j, k = torch.arange(1, LONGEST + 1) / LONGEST, torch.arange(1, WIDTH + 1) / WIDTH
        self.register_buffer("places", (1 - j)[:, None] - k * (1 - 2 * j)[:, None])
        self.places: Tensor

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        """``int64[B, 50, J]`` and ``int64[B, J]``, 0 for no word, to ``[B, answers]``."""
        u = (self.words[0](question) * self.places).sum(1)
        empty = story.sum(2) == 0
        for hop in range(HOPS):
            keys = (self.words[hop](story) * self.places).sum(2) + self.ages[hop]
            values = (self.words[hop + 1](story) * self.places).sum(2) + self.ages[hop + 1]
            weights = (keys @ u.unsqueeze(2)).squeeze(2).masked_fill(empty, -1e9).softmax(1)
            u = u + (weights.unsqueeze(1) @ values).squeeze(1)
        return self.out(u)


def ours() -> MANN:
    bag = Bag(WORDS, LONGEST, WIDTH, embeddings=HOPS + 1)
    memory = {"name": "memory_network", "slots": SLOTS, "width": WIDTH, "hops": HOPS, "noise": NOISE}
    spec = StreamSpec({"text": bag}, Classes(ANSWERS))
    return MANN({"name": "feedforward", "layers": 0}, memory, spec, interface="direct")


def stories(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words ``int64[B, T, J]`` (-1: none), the step of each question, and answers."""
    generator = torch.Generator().manual_seed(0)
    # As on average in batches of stories of like length.
    lengths = torch.randint(20, 29, (batch,), generator=generator)
    steps, count = int(lengths.max()) + 1, torch.randint(4, 9, (batch, 1, 1), generator=generator)
    words = torch.randint(0, WORDS, (batch, steps, LONGEST), generator=generator)
    there = (torch.arange(LONGEST) < count) & (torch.arange(steps)[:, None] <= lengths[:, None, None])
    return words.masked_fill(~there, -1), lengths, torch.randint(0, ANSWERS, (batch,), generator=generator)


def timed(net: nn.Module, say: Callable[[], Tensor], answers: Tensor, steps: int) -> Callable[[], float]:
    """Forward, loss, backward and Adam; returns seconds a step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def run() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(say(), answers).backward()
            optimizer.step()
        return (time.perf_counter() - began) / steps

    return run


def measure(batch: int, rounds: int) -> dict[str, float]:
    """Seconds of a step for each way, with so many questions."""
    words, lengths, answers = stories(batch)
    valid = (torch.arange(words.shape[1]) <= lengths[:, None]).float()
    asked = torch.arange(words.shape[1]) == lengths[:, None]
    story = torch.zeros(batch, SLOTS, LONGEST, dtype=torch.int64)
    for row, (said, length) in enumerate(zip(words, lengths.tolist(), strict=True)):
        story[row, SLOTS - length :] = said[:length] + 1
    question = words[torch.arange(batch), lengths] + 1
    inputs, few, every, plain = {"text": words}, ours(), ours(), Textbook()
    ways: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "ours": (few, lambda: few.answers(inputs, valid, asked)[:, 0]),
        "all": (every, lambda: every(inputs, valid)[asked][:, 0]),
        "textbook": (plain, lambda: plain(story, question)),
    }
    return in_turns({name: timed(net, say, answers, 5) for name, (net, say) in ways.items()}, rounds)


def main() -> None:
    columns = ("questions", "ours", "ours, all steps read", "textbook")
    sizes = ("batches", "batch", [32, 64, 256])
    against_textbook("memory_network", __doc__, "A training step, ms", columns, sizes, measure)


if __name__ == "__main__":
    main()
