"""The model that joins a controller and a memory."""

from mannlab.model.mann import MANN, assemble
from mannlab.model.unroll import RunState
from mannlab.model.watch import Trace

__all__ = ["MANN", "RunState", "Trace", "assemble"]
