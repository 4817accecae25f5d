"""What comes in and what is asked: channels, targets, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Vector:
    """A channel of real vectors, ``float[B, T, size]``."""

    size: int


@dataclass(frozen=True)
class Token:
    """A channel of symbols, ``int64[B, T]`` in [0, vocabulary)."""

    vocabulary: int


@dataclass(frozen=True)
class Bag:
    """A channel of several symbols a step, such as the words of a sentence, ``int64[B, T, size]``.

    Symbols are in [0, vocabulary), in their order; -1 fills up after the last one. The model learns a vector
    of ``width`` for each, and sums those of a step: weighted by their places if ``positions``, so that their
    order counts. With several ``embeddings`` it learns as many such vectors for each, whose sums lie side by
    side. They start with a standard deviation of ``deviation``.
    """

    vocabulary: int
    size: int
    width: int = 64
    positions: bool = True
    embeddings: int = 1
    deviation: float = 0.1


@dataclass(frozen=True)
class Image:
    """A channel of pictures, ``float[B, T, channels, height, width]`` in [0, 1].

    ``encoder`` is ``"flat"`` (the pixels as a vector) or ``"conv"`` (a small convolutional net).
    """

    height: int
    width: int
    channels: int = 1
    encoder: str = "flat"


@dataclass(frozen=True)
class Bits:
    """A target of independent bits, ``float[B, T, size]``; the model emits one logit a bit."""

    size: int


@dataclass(frozen=True)
class Classes:
    """A target of ``groups`` symbols, ``int64[B, T, groups]`` in [0, count).

    The model emits ``[B, T, groups, count]`` logits.
    """

    count: int
    groups: int = 1


@dataclass(frozen=True)
class StreamSpec:
    """What comes in at each step, by channel name, and what is asked."""

    inputs: Mapping[str, Vector | Token | Bag | Image]
    target: Bits | Classes


@dataclass(frozen=True)
class Batch:
    """Some sequences, padded at their ends to one length.

    Attributes:
        inputs: one tensor per channel of the spec, ``[B, T, ...]``.
        targets: ``[B, T, ...]`` as the spec's target says.
        scored: ``float[B, T]``, 1 where an answer is asked.
        valid: ``float[B, T]``, 1 for real steps, or None if every step is real.
        extra: anything else that the task's score or pictures want, ``[B, ...]`` each.
        continues: each sequence goes on where that of the batch before ended (see ``Task.continuous``).
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    scored: Tensor
    valid: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    continues: bool = False

    def __len__(self) -> int:
        return self.targets.shape[0]

    def apply(self, function: Any) -> Batch:
        """The same batch with ``function`` applied to every tensor."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, dict):
                changed[item.name] = {key: function(tensor) for key, tensor in value.items()}
            elif isinstance(value, Tensor):
                changed[item.name] = function(value)
        return replace(self, **changed)

    def to(self, device: Any, non_blocking: bool = True) -> Batch:
        """The same batch on ``device``."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for fast copies to a GPU."""
        return self.apply(lambda tensor: tensor.pin_memory())
