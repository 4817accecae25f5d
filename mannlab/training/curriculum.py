"""Sizes that grow as the task is learnt: the exponential curriculum of Rae et al. 2016 (section 4.3)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mannlab.contracts import Batch, Bits, Classes, Score, Task
from mannlab.errors import ConfigError, choices, require
from mannlab.registry import conform

log = logging.getLogger(__name__)

WINDOW = 256  # training sequences over which the loss is averaged, unless the task's options say otherwise
LAG = 4  # batches until a rise shows: some are drawn ahead, and a resumed run must draw the same


@dataclass(frozen=True)
class Plan:
    """What ``task.curriculum`` asks for.

    Attributes:
        threshold: mean cost under which the largest size doubles, bits for each symbol asked.
        start: the largest size at first.
        max: the largest that it may become; None: any.
        window: training sequences over which the mean is taken.
    """

    threshold: float
    start: int
    max: int | None
    window: int


def plan_of(task: Task) -> Plan | None:
    """The curriculum that a task's option asks for, or None.

    Raises:
        ConfigError: the task has no size, or an option is unknown, of the wrong type or impossible.
    """
    asked = task.curriculum
    if asked is None or asked is False:
        return None
    if task.first_ceiling is None:
        raise ConfigError(
            "task.curriculum: this task has no size that could grow.",
            "Leave it null, or set first_ceiling in the task's class.",
        )
    given = dict(asked) if isinstance(asked, dict) else {} if asked is True else {"threshold": asked}
    known = {
        "threshold": (float, task.easy),
        "start": (int, task.first_ceiling),
        "max": (int | None, task.last_ceiling),
        "window": (int, WINDOW),
    }
    for key in given:
        require(
            key in known,
            f"task.curriculum.{key}: a curriculum has no such option.",
            choices(str(key), known, "options"),
        )
    found = {
        key: conform(given.get(key, default), kind, f"task.curriculum.{key}")
        for key, (kind, default) in known.items()
    }
    if found["max"] is None:
        found["max"] = task.last_ceiling
    plan = Plan(**found)
    require(
        0 < plan.threshold < math.inf,
        f"task.curriculum: a threshold of {plan.threshold:g} is not allowed.",
        "Give bits for each symbol asked, more than 0.",
    )
    require(
        plan.window >= 1, f"task.curriculum.window: {plan.window} is not allowed.", "It must be at least 1."
    )
    require(
        plan.start >= task.least_size,
        f"task.curriculum.start: {plan.start} is less than the task's smallest size, {task.least_size}.",
        f"Give at least {task.least_size}.",
    )
    if plan.max is not None:
        require(
            plan.max >= plan.start,
            f"task.curriculum.max: {plan.max} is less than the largest size at first, {plan.start}.",
            "Raise it, or set a smaller task.curriculum.start.",
        )
        require(
            task.last_ceiling is None or plan.max <= task.last_ceiling,
            f"task.curriculum.max: {plan.max} is more than this task can draw, {task.last_ceiling}.",
            f"Give at most {task.last_ceiling}, or null.",
        )
    return plan


class Curriculum:
    """The largest size at which training samples are drawn; it doubles when they cost little.

    Sizes are uniform between the task's smallest and :attr:`ceiling`. Each time that ``window`` sequences
    have been seen at the present ceiling, their mean cost is compared with the threshold; if it is less,
    the ceiling doubles, up to the last one.

    A batch counts once the optimizer has stepped with it, as its samples count as consumed then: a
    checkpoint in the middle of accumulated gradients holds nothing that a resumed run sees again.

    Args:
        task: ``task.curriculum`` says what is wanted.

    Attributes:
        plan: the options, or None without a curriculum.
        ceiling: the largest size now, or None without a curriculum.

    Raises:
        ConfigError: the task has no size, or an option is impossible.
    """

    def __init__(self, task: Task) -> None:
        self.plan = plan_of(task)
        self.ceiling = self.plan.start if self.plan else None
        self._symbols = symbols(task.spec.target)
        self._cost: Tensor | float = 0.0
        self._asked: Tensor | float = 0.0
        self._seen = 0
        self._pending: list[tuple[Tensor, Tensor, int]] = []
        self._rises = [(0, self.plan.start)] if self.plan else []

    @property
    def running(self) -> bool:
        """Whether the ceiling may still rise."""
        return self.plan is not None and (self.plan.max is None or self._rises[-1][1] < self.plan.max)

    def at(self, sample: int) -> int | None:
        """The ceiling for a training sample."""
        return next((ceiling for start, ceiling in reversed(self._rises) if start <= sample), None)

    def note(self, score: Score, batch: Batch, first: int) -> None:
        """Take down what a training batch cost; it counts at the next :meth:`step`.

        Args:
            score: of the batch.
            batch: this rank's.
            first: index of the first sample of this step, over all ranks.
        """
        # What was drawn before the last rise says nothing about the sizes of now.
        if self.running and first >= self._rises[-1][0]:
            cost = score.loss.detach().double() * len(batch)
            self._pending.append((cost, batch.scored.bool().sum().double() * self._symbols, len(batch)))

    def step(self, drawn: int, ahead: int, trainer: Any) -> None:
        """Count the batches noted since the last step, and double the ceiling if it is time.

        All ranks decide alike: each sees as many sequences, and their costs are summed over ranks.

        Args:
            drawn: training samples up to the end of this optimizer step, over all ranks.
            ahead: samples of one batch, over all ranks.
            trainer: Lightning's.
        """
        for cost, asked, count in self._pending:
            self._cost, self._asked = self._cost + cost, self._asked + asked
            self._seen += count * trainer.world_size
        self._pending = []
        if self.plan is None or self.ceiling is None or not self.running or self._seen < self.plan.window:
            return
        sums = trainer.strategy.reduce(self._sums(trainer), reduce_op="sum")
        total, symbols_asked = sums.tolist()
        self._restart()
        bits = total / symbols_asked / math.log(2)
        if bits < self.plan.threshold:
            doubled = 2 * self.ceiling
            self.ceiling = doubled if self.plan.max is None else min(doubled, self.plan.max)
            self._rises.append((drawn + LAG * ahead, self.ceiling))
            if trainer.is_global_zero:
                log.info(
                    "curriculum: %.3g bits for each symbol asked, so sizes up to %d from now on",
                    bits,
                    self.ceiling,
                )

    def _restart(self) -> None:
        self._cost = self._asked = 0.0
        self._seen = 0

    def _sums(self, trainer: Any) -> Tensor:
        """This rank's cost in nats and its symbols asked, ``float64[2]``."""
        device = trainer.strategy.root_device
        parts = (self._cost, self._asked)
        return torch.stack([torch.as_tensor(part, dtype=torch.float64, device=device) for part in parts])

    def state_dict(self, trainer: Any) -> dict[str, Any]:
        """What a resumed run needs, the sums of every rank among it; all ranks must call it."""
        sums = trainer.strategy.all_gather(self._sums(trainer)).reshape(-1, 2).tolist()
        return {"rises": [list(rise) for rise in self._rises], "seen": self._seen, "sums": sums}

    def load_state_dict(self, state: dict[str, Any], consumed: int, rank: int = 0, world: int = 1) -> None:
        """Go on from :meth:`state_dict`, after ``consumed`` samples over all ranks.

        The ceiling that the run had is brought between the plan's ``start`` and ``max``, which may be others
        now. Then, and on another number of ranks, the mean is begun anew.
        """
        if self.plan is None or not state.get("rises"):
            return
        self._rises = [(int(start), int(ceiling)) for start, ceiling in state["rises"]]
        had = self._rises[-1][1]
        self.ceiling = max(self.plan.start, had if self.plan.max is None else min(had, self.plan.max))
        self._restart()
        sums = state.get("sums", [])
        if self.ceiling != had:
            self._rises.append((consumed, self.ceiling))
        elif len(sums) == world:
            (self._cost, self._asked), self._seen = sums[rank], int(state["seen"])


def symbols(target: Bits | Classes) -> int:
    """How many symbols are asked at a step that is scored."""
    return target.size if isinstance(target, Bits) else target.groups
