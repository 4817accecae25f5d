"""Normalizing queries, so that they reach all keys and not a few."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


def _everywhere(total: Tensor) -> Tensor:
    """The sum over all ranks, with its gradient."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return total
    summed: Tensor = all_reduce(total)
    return summed


class QueryNorm(nn.Module):
    """Batch norm over the real steps alone: padding does not enter the statistics (Lample et al. 2019, 4.4).

    In a distributed run the statistics are those of all ranks together.

    Args:
        size: width of a query, all heads together.
        momentum: share of a batch in the running statistics, which evaluation uses.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, size: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.gain, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """``x[T, size]``; ``valid[T]`` is 1 for real steps. No real step at all counts as evaluation."""
        mean, variance = self.mean, self.variance
        if self.training:
            real = x.new_ones(len(x), 1) if valid is None else valid.to(x.dtype).unsqueeze(1)
            count = _everywhere(real.sum())
            here = _everywhere((x * real).sum(0)) / count.clamp_min(1)
            spread = _everywhere(((x - here).square() * real).sum(0)) / count.clamp_min(1)
            # One step alone has no spread to divide by.
            enough = count > 1
            mean, variance = torch.where(enough, here, mean), torch.where(enough, spread, variance)
            with torch.no_grad():
                share = torch.where(enough, self.momentum, 0.0).to(x.dtype)
                unbiased = variance * count / (count - 1).clamp_min(1)
                self.mean.lerp_(mean.to(self.mean.dtype), share)
                self.variance.lerp_(unbiased.to(self.variance.dtype), share)
        return (x - mean) * (variance + self.eps).rsqrt() * self.gain + self.bias
