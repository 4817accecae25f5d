"""The convolutional net in front of a memory: a training step over the pictures of a batch of episodes.

    python benchmarks/encoders.py                # under a minute

Pictures of 20 x 20 go through forward and backward a few at a time, all at once, and through a textbook's net
of the same size (batch norm for group norm, ReLU before pooling, channels first). What is compared
is measured in turns in one run; each figure is the least of its rounds. Prints a table; writes
``encoders.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch
from _measure import against_textbook, in_turns
from torch import Tensor, nn

from mannlab.contracts import Image
from mannlab.model.encoders import CONV_CHANNELS, CONV_OUTPUT, ConvEncoder

SIZE = 20


def textbook() -> nn.Module:
    channels = (1, *[CONV_CHANNELS] * 3)
    blocks: list[nn.Module] = []
    for before, after in pairwise(channels):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(CONV_CHANNELS * (SIZE // 8) ** 2, CONV_OUTPUT))


def ours(chunk: int | None = None) -> ConvEncoder:
    encoder = ConvEncoder(Image(SIZE, SIZE, 1, "conv"))
    encoder.chunk = chunk or encoder.chunk
    return encoder


def timed(net: nn.Module, pictures: Tensor) -> Callable[[], float]:
    """Forward and backward; returns seconds."""

    def run() -> float:
        began = time.perf_counter()
        net.zero_grad()
        net(pictures).square().sum().backward()
        return time.perf_counter() - began

    return run


def measure(count: int, rounds: int) -> dict[str, float]:
    """Seconds of each way, with so many pictures."""
    pictures = torch.rand(count, 1, SIZE, SIZE)
    nets = {"ours": ours(), "at once": ours(chunk=count), "textbook": textbook()}
    return in_turns({name: timed(net, pictures) for name, net in nets.items()}, rounds)


def main() -> None:
    columns = ("pictures", "ours", "ours, all at once", "textbook")
    sizes = ("pictures", "pictures", [160, 800, 2400])
    against_textbook("encoders", __doc__, "Forward and backward, ms", columns, sizes, measure)


if __name__ == "__main__":
    main()
