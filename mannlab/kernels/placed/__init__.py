"""Sums of the vectors of a step's symbols, weighted by their places: what a sentence is summed to."""

from mannlab.kernels.placed.ops import placed_sum

__all__ = ["placed_sum"]
