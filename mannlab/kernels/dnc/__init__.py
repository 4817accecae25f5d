"""The step of a Differentiable Neural Computer's memory.

``naive.py`` is the definition: loops and scalars, the paper's equations one by one, in any precision.
The form in :mod:`mannlab.memory` is held to it in float64 by the tests.
"""

from mannlab.kernels.dnc.layout import DNCInterface, DNCState
from mannlab.kernels.dnc.naive import naive_step

__all__ = ["DNCInterface", "DNCState", "naive_step"]
