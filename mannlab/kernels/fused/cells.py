"""What a controller and a memory bring to a fused sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Sizes of a run, and what all cells see.

    Attributes:
        steps: T.
        batch: B.
        keep: whether a backward pass may follow; if not, histories need not be kept.
        dtype: of everything.
        valid: ``[T, B]``, 0 for padding.
    """

    steps: int
    batch: int
    keep: bool
    dtype: torch.dtype
    valid: np.ndarray[Any, Any]


class MemoryCell(ABC):
    """A memory, for one sequence. Gradients are of a loss with respect to what is named."""

    state: tuple[Tensor, ...]  # the initial one, differentiable inputs of the node

    @abstractmethod
    def begin(self, plan: Plan, state: Sequence[Tensor], reads: Tensor) -> None:
        """Make room. ``reads[T + 1, B, R]``: row 0 is there, row t + 1 is for the cell to fill at step t."""

    @abstractmethod
    def said(self, t: int) -> Tensor:
        """Where the interface of step t is to be put, ``[B, I]``."""

    @abstractmethod
    def forward(self, t: int) -> None:
        """Step t. Padding holds the state and the reads."""

    @abstractmethod
    def last(self) -> tuple[Tensor, ...]:
        """The state after the last step, in memory of its own."""

    @abstractmethod
    def begin_backward(self, on_last: Sequence[Tensor | None]) -> Any:
        """What a backward pass carries, given the gradients of :meth:`last`."""

    @abstractmethod
    def backward(self, carried: Any, t: int, on_reads: Tensor, on_said: Tensor) -> None:
        """Back through step t.

        Args:
            carried: from :meth:`begin_backward`; changed in place.
            t: the step.
            on_reads: gradient of its reads ``[B, R]``; left as that of the reads before, through padding.
            on_said: to be filled, gradient of the interface ``[B, I]``.
        """

    @abstractmethod
    def end_backward(self, carried: Any, needed: Sequence[bool]) -> list[Tensor | None]:
        """Gradients of the initial state."""


class ControllerCell(ABC):
    """A controller, for one sequence."""

    state: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]

    @abstractmethod
    def begin(
        self, plan: Plan, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], hidden: Tensor
    ) -> None:
        """Make room. ``x[T, B, E]`` comes in beside the reads; ``hidden[T, B, C]`` is to be filled."""

    @abstractmethod
    def forward(self, t: int, reads: Tensor) -> None:
        """Step t, given the reads of the last ``[B, R]``."""

    @abstractmethod
    def last(self) -> tuple[Tensor, ...]:
        """The state after the last step, in memory of its own."""

    @abstractmethod
    def begin_backward(self, on_last: Sequence[Tensor | None]) -> Any:
        """What a backward pass carries, given the gradients of :meth:`last`."""

    @abstractmethod
    def backward(self, carried: Any, t: int, on_hidden: Tensor, on_reads: Tensor) -> None:
        """Back through step t, given the gradient of ``hidden[t]``; add that of the reads to ``on_reads``."""

    @abstractmethod
    def end_backward(
        self, carried: Any, reads: Tensor, needed: tuple[bool, Sequence[bool], Sequence[bool]]
    ) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
        """Gradients of ``x``, of the initial state and of the weights, those that are needed.

        Args:
            carried: from :meth:`begin_backward`.
            reads: what the steps were given, ``[T, B, R]``.
            needed: of each of the three, whether it is needed.
        """
