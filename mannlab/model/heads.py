"""The layer that turns what the model knows into the logits that a task asks for."""

from __future__ import annotations

from torch import Tensor, nn

from mannlab.contracts import Bits, Classes


class Head(nn.Module):
    """Linear map of ``[B, T, input_size]`` to logits: ``[B, T, size]`` or ``[B, T, groups, count]``.

    Args:
        input_size: width of what the model knows.
        target: what is asked.
        tied: an embedding of the same symbols, ``[count, width]``, which becomes the weight of the last layer
            (Press and Wolf 2017, arXiv 1608.05859); what the model knows is first brought to its width. None:
            a weight of its own.
    """

    def __init__(self, input_size: int, target: Bits | Classes, tied: nn.Parameter | None = None) -> None:
        super().__init__()
        self.target = target
        self.project: nn.Module = nn.Identity()
        if tied is not None:
            input_size, before = tied.shape[1], input_size
            self.project = nn.Linear(before, input_size)
        size = target.size if isinstance(target, Bits) else target.groups * target.count
        self.linear = nn.Linear(input_size, size)
        if tied is not None:
            self.linear.weight = tied

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(self.project(x))
        if isinstance(self.target, Classes):
            return logits.unflatten(-1, (self.target.groups, self.target.count))
        return logits
