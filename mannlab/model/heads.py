"""The layer that turns what the model knows into the logits that a task asks for."""

from __future__ import annotations

from torch import Tensor, nn

from mannlab.contracts import Bits, Classes


class Head(nn.Module):
    """Linear map of ``[B, T, input_size]`` to logits: ``[B, T, size]`` or ``[B, T, groups, count]``."""

    def __init__(self, input_size: int, target: Bits | Classes) -> None:
        super().__init__()
        self.target = target
        size = target.size if isinstance(target, Bits) else target.groups * target.count
        self.linear = nn.Linear(input_size, size)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(x)
        if isinstance(self.target, Classes):
            return logits.unflatten(-1, (self.target.groups, self.target.count))
        return logits
