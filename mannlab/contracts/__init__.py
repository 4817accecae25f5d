"""The doors of the house: what a memory, a controller and a task are.

Shapes: ``B`` batch, ``T`` time, ``N`` slots, ``W`` word width, ``R`` read heads, ``I`` interface
width. Batch first everywhere.

Two rules hold for every component:

- *Padding comes last.* ``valid[B, T]`` is 1 for the real steps of a sequence, then 0; ``None`` means
  that every step is real. Where it is 0 the state is held, so padding never writes.
- *A state is used once.* A step may consume the state that it is given (a memory may change one big
  buffer in place), so whoever needs it again takes a :meth:`Memory.snapshot` first.
"""

from __future__ import annotations

from mannlab.contracts.controller import Controller
from mannlab.contracts.memory import Heads, Memory, Vitals
from mannlab.contracts.states import State, cut, hold, pick
from mannlab.contracts.streams import Bag, Batch, Bits, Classes, Image, StreamSpec, Token, Vector
from mannlab.contracts.task import Continuation, Examination, Generate, Objective, Score, Split, Task

__all__ = [
    "Bag",
    "Batch",
    "Bits",
    "Classes",
    "Continuation",
    "Controller",
    "Examination",
    "Generate",
    "Heads",
    "Image",
    "Memory",
    "Objective",
    "Score",
    "Split",
    "State",
    "StreamSpec",
    "Task",
    "Token",
    "Vector",
    "Vitals",
    "cut",
    "hold",
    "pick",
]
