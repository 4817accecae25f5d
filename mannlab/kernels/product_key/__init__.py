"""Search among the n^2 keys that two tables of n half-keys make (Lample et al. 2019)."""

from mannlab.kernels.product_key.search import Found, search

__all__ = ["Found", "search"]
