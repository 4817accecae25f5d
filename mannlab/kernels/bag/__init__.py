"""Weighted sums of a few rows of a very large table, their gradients, and an optimizer for it."""

from mannlab.kernels.bag.optimizer import RowAdam
from mannlab.kernels.bag.table import RowTable

__all__ = ["RowAdam", "RowTable"]
