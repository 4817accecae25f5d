"""Attention in several hops over what was said before: the reads of a memory network, all steps at once."""

from mannlab.kernels.memory_network.attention import Hops, attend

__all__ = ["Hops", "attend"]
