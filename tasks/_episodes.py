"""Which class each image of an episode is of, what is asked, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mannlab.contracts import Batch
from mannlab.datasets.drawings import DRAWINGS
from mannlab.draws import Draws
from mannlab.errors import require

CONFUSED = (1, 2, 5, 10)  # instances whose confusion is shown


@dataclass(frozen=True)
class Plan:
    """The images of some episodes.

    Attributes:
        slots: the class of each, ``int64[B, T]``.
        lengths: how many there are, ``int64[B]``.
        most: classes of the largest episode that the split may have.
        steps: images of that.
        shown: images at first of which nothing is asked; if there are any, no label is shown after them.
        extra: for the batch.
    """

    slots: NDArray[np.int64]
    lengths: NDArray[np.int64]
    most: int
    steps: int
    shown: int = 0
    extra: dict[str, Tensor] = field(default_factory=dict)


def set_name(ways: int, shots: int) -> str:
    """What a few-shot set is called: ``5way_1shot``."""
    return f"{ways}way_{shots}shot"


def few_shot_sets(episodes: list[list[int]], queries: int) -> dict[str, tuple[int, int]]:
    """The few-shot sets by name, as (ways, shots).

    Raises:
        ConfigError: not pairs of numbers, or more images of a character than there are drawings.
    """
    found = {}
    for pair in episodes:
        require(len(pair) == 2, f"task.episodes: {pair} is not allowed.", "Give pairs: [[ways,shots],...].")
        ways, shots = pair
        require(shots >= 1, f"task.episodes: {shots} shots are not allowed.", "There must be at least 1.")
        require(
            shots + queries <= DRAWINGS,
            f"task.episodes: {shots} shots and task.queries={queries} are more than the {DRAWINGS} drawings "
            "of a character.",
            f"Together they may be {DRAWINGS}.",
        )
        found[set_name(ways, shots)] = (ways, shots)
    return found


def few_shot(draws: Draws, start: int, count: int, ways: int, shots: int, queries: int) -> Plan:
    """``shots`` images of each of ``ways`` classes in random order, then ``queries`` of random classes."""
    shown = ways * shots
    order = draw_distinct(draws, start, count, shown, shown, "order")
    asked = (draws.uniform(start, count, queries, "queries") * ways).astype(np.int64)
    slots = np.concatenate([order % ways, asked], axis=1)
    extra = {name: torch.full((count,), n) for name, n in (("ways", ways), ("shots", shots))}
    return Plan(slots, np.full(count, shown + queries), ways, shown + queries, shown, extra)


def instances(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same class came before each image, ``int64[B, T]``."""
    rows, steps = np.arange(len(slots))[:, None], np.arange(slots.shape[1])
    order = np.argsort(slots, axis=1, kind="stable")
    grouped = slots[rows, order]
    new = np.diff(grouped, axis=1, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(new, steps, 0), axis=1)
    seen = np.empty_like(slots)
    seen[rows, order] = steps - first
    return seen


def draw_distinct(
    draws: Draws, start: int, count: int, available: int, wanted: int, purpose: str
) -> NDArray[np.int64]:
    """``wanted`` different numbers in [0, available) for each sample, in random order."""
    keys = draws.words(start, count, available, purpose)
    smallest = np.argpartition(keys, wanted - 1, axis=1)[:, :wanted]
    order = np.argsort(np.take_along_axis(keys, smallest, 1), axis=1)
    return np.take_along_axis(smallest, order, 1)


def confusion(answers: Tensor, batch: Batch, count: int) -> dict[str, Tensor]:
    """How often each symbol was answered for each, ``int64[count, count]``, by instance of the character.

    Args:
        answers: ``int64[B, T, groups]``.
        batch: targets, what is scored, and ``extra["instance"]``.
        count: symbols.
    """
    instance = (batch.extra["instance"] * batch.scored.long()).cpu()
    present = [number for number in instance.unique().tolist() if number > 0]
    counts = {}
    for number in [n for n in CONFUSED if n in present] or present[:4]:
        here = instance == number
        pairs = (batch.targets.cpu()[here] * count + answers[here]).flatten()
        counts[f"instance {number}"] = torch.bincount(pairs, minlength=count**2).view(count, count)
    return counts
