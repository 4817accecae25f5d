"""Sparse Access Memory (Rae et al. 2016, arXiv 1610.09027): one step, defined and made fast.

``naive`` is the definition, over all slots, purely functional. ``compiled`` (numba, CPU) and ``eager``
(torch, any device) change one buffer in place and undo it in the backward pass; both are engines that
``session`` drives.
"""
