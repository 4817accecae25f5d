"""Sparse Differentiable Neural Computer (Rae et al. 2016, appendix): sparse access, and links in time.

``naive`` is the definition, over all slots; ``compiled`` (numba) works in place.
"""
