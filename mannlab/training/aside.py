"""Running a model in the middle of training, only to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def aside(pl_module: Any) -> Iterator[None]:
    """Evaluation without gradients; leaves mode, random state and what memories count as they were."""
    training = pl_module.training
    memories = [memory for memory, _ in pl_module.model.named_memories()]
    observing = [memory.observing for memory in memories]
    devices = [pl_module.device] if pl_module.device.type == "cuda" else []
    pl_module.eval()
    for memory in memories:
        memory.observing = False
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        pl_module.train(training)
        for memory, before in zip(memories, observing, strict=True):
            memory.observing = before
