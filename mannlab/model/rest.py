"""Running a model only to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mannlab.model.mann import MANN


@contextmanager
def at_rest(model: MANN) -> Iterator[None]:
    """Evaluation without gradients; leaves its mode and what memories count as they were."""
    training = model.training
    memories = [memory for memory, _ in model.named_memories()]
    observing = [memory.observing for memory in memories]
    model.eval()
    for memory in memories:
        memory.observing = False
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        for memory, before in zip(memories, observing, strict=True):
            memory.observing = before
