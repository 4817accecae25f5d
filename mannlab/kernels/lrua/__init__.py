"""The step of a memory with least recently used access.

``naive.py`` is the definition: loops and scalars, the paper's equations one by one, in any precision.
Every faster form, in :mod:`mannlab.memory` or here, is held to it in float64 by the tests.
"""

from mannlab.kernels.lrua.naive import naive_step

__all__ = ["naive_step"]
