"""Schedules that torch has no class for, or none that serves runs of any length."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mannlab.errors import ConfigError


class WarmupCosine(LambdaLR):
    """Up from a small share of the learning rate, then down to zero, each along half a cosine.

    The one cycle of Smith and Topin (2018, arXiv 1708.07120) without its cycle of momentum. Torch's
    ``OneCycleLR`` divides by zero where the way up is a step long, and ends in an error a step after its end;
    this one stays at zero.

    Args:
        optimizer: whose learning rates are the top of the curve.
        total_steps: steps until the end of the curve.
        warmup: share of them on the way up, at least 0 and below 1.
        start_factor: share of the learning rate at the first step, 0 to 1.

    Raises:
        ConfigError: ``warmup`` or ``start_factor`` out of bounds.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05, start_factor: float = 0.04
    ) -> None:
        if not 0 <= warmup < 1:
            raise ConfigError(
                f"scheduler.warmup: {warmup} is not allowed.",
                "It is the share of all steps on the way up: at least 0, and below 1.",
            )
        if not 0 <= start_factor <= 1:
            raise ConfigError(
                f"scheduler.start_factor: {start_factor} is not allowed.",
                "It is the share of the learning rate at the first step: 0 to 1.",
            )
        top = warmup * total_steps

        def factor(step: int) -> float:
            if step < top:
                return start_factor + (1 - start_factor) * (1 - math.cos(math.pi * step / top)) / 2
            gone = min(1.0, (step - top) / (total_steps - top))
            return (1 + math.cos(math.pi * gone)) / 2

        super().__init__(optimizer, factor)
