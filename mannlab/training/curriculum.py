"""Sizes that grow as the task is learnt: the exponential curriculum of Rae et al. 2016 (section 4.3)."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from mannlab.contracts import Batch, Bits, Classes, Score, Task
from mannlab.errors import ConfigError

log = logging.getLogger(__name__)

WINDOW = 256  # training sequences over which the loss is averaged
LAG = 4  # batches until a rise shows: some are drawn ahead, and a resumed run must draw the same


class Curriculum:
    """The largest size at which training samples are drawn; it doubles when they cost little.

    Sizes are uniform between the task's smallest and :attr:`ceiling`. Whenever the loss, averaged over 256
    sequences, falls below the task's threshold, the ceiling doubles, up to the task's last one.

    Args:
        task: with ``curriculum`` set, in bits for each symbol asked (a bit, or a class).

    Attributes:
        ceiling: the largest size now, or None if the task wants no curriculum.

    Raises:
        ConfigError: the task has no size.
    """

    def __init__(self, task: Task) -> None:
        self.threshold, self.last = task.curriculum, task.last_ceiling
        self.ceiling: int | None = None
        self._symbols = symbols(task.spec.target)
        self._cost: Tensor | float = 0.0
        self._asked: Tensor | float = 0.0
        self._seen = 0
        self._rises: list[tuple[int, int]] = []
        if self.threshold is None:
            return
        if task.first_ceiling is None:
            raise ConfigError(
                "task.curriculum: this task has no size that could grow.",
                "Leave it null, or set first_ceiling in the task's class.",
            )
        self.ceiling = task.first_ceiling
        self._rises = [(0, task.first_ceiling)]

    @property
    def running(self) -> bool:
        """Whether the ceiling may still rise."""
        return self.ceiling is not None and (self.last is None or self.ceiling < self.last)

    def at(self, sample: int) -> int | None:
        """The ceiling for a training sample."""
        return next((ceiling for start, ceiling in reversed(self._rises) if start <= sample), None)

    def update(self, score: Score, batch: Batch, drawn: int, trainer: Any) -> None:
        """Count a training batch, and double the ceiling if it is time; all ranks alike.

        Args:
            score: of the batch.
            batch: this rank's.
            drawn: training samples up to the end of this batch, over all ranks.
            trainer: Lightning's.
        """
        if not self.running:
            return
        self._cost = self._cost + score.loss.detach().double() * len(batch)
        self._asked = self._asked + batch.scored.sum().double() * self._symbols
        self._seen += len(batch) * trainer.world_size
        if self._seen < WINDOW:
            return
        sums = torch.stack([torch.as_tensor(self._cost), torch.as_tensor(self._asked)])
        cost, asked = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        self._cost = self._asked = 0.0
        self._seen = 0
        bits = cost / asked / math.log(2)
        assert self.ceiling is not None and self.threshold is not None  # noqa: PT018 - it is running
        if bits < self.threshold:
            self.ceiling = min(2 * self.ceiling, self.last or 2 * self.ceiling)
            self._rises.append((drawn + LAG * len(batch) * trainer.world_size, self.ceiling))
            log.info(
                "curriculum: %.3g bits for each symbol asked, so sizes up to %d from now on",
                bits,
                self.ceiling,
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "rises": [list(rise) for rise in self._rises],
            "cost": float(self._cost),
            "asked": float(self._asked),
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.ceiling is not None and state.get("rises"):
            self._rises = [(int(start), int(ceiling)) for start, ceiling in state["rises"]]
            self.ceiling = self._rises[-1][1]
            self._cost, self._asked, self._seen = state["cost"], state["asked"], int(state["seen"])


def symbols(target: Bits | Classes) -> int:
    """How many symbols are asked at a step that is scored."""
    return target.size if isinstance(target, Bits) else target.groups
