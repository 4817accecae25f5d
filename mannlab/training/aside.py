"""Running a model in the middle of training, only to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mannlab.model.rest import at_rest


@contextmanager
def aside(pl_module: Any) -> Iterator[None]:
    """Evaluation without gradients; leaves mode, random state and what memories count as they were."""
    devices = [pl_module.device] if pl_module.device.type == "cuda" else []
    with at_rest(pl_module.model), torch.random.fork_rng(devices=devices):
        yield
