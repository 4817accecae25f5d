"""What a search may choose from, in the grammar of Hydra's command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mannlab.errors import require

EXAMPLE = 'Give values or a range: "optimizer.lr=tag(log,interval(1e-4,1e-2))" memory=dense,none.'


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        step: between neighbours, or None for all numbers.
        whole: whole numbers only.
        log: as likely between 1 and 10 as between 10 and 100.
    """

    low: float
    high: float
    step: float | None = None
    whole: bool = False
    log: bool = False

    @property
    def example(self) -> str:
        """One value."""
        return str(self.low)

    def suggest(self, trial: Any, name: str) -> str:
        """The value of a trial, as an override."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return str(trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log))
        return repr(float(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)))


@dataclass(frozen=True)
class Choice:
    """One of several values, written as overrides."""

    values: tuple[str, ...]

    @property
    def example(self) -> str:
        """One value."""
        return self.values[0]

    def suggest(self, trial: Any, name: str) -> str:
        """The value of a trial, as an override."""
        return str(trial.suggest_categorical(name, self.values))


Space = Mapping[str, Range | Choice]


def split(arguments: Sequence[str], more: Mapping[str, Any]) -> tuple[dict[str, Range | Choice], list[str]]:
    """What is to be searched, by key, and the overrides that all jobs share.

    Args:
        arguments: of the command line.
        more: ``sweep.search.space``: key to what would stand behind the ``=``.

    Raises:
        ConfigError: nothing is to be searched, or a range is impossible.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = {word.partition("=")[0]: word for word in arguments}
    words = [f"{key}={value}" for key, value in more.items() if key not in given] + list(arguments)
    space: dict[str, Range | Choice] = {}
    common = []
    for one in OverridesParser.create().parse_overrides(words):
        if one.is_sweep_override():
            space[one.get_key_element()] = _dimension(one)
        else:
            common.append(str(one.input_line))
    require(bool(space), "sweep=optuna: nothing is to be searched.", EXAMPLE)
    return space, common


def _dimension(one: Any) -> Range | Choice:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    value, key = one.value(), one.get_key_element()
    log = "log" in (getattr(value, "tags", None) or ())
    if isinstance(value, IntervalSweep):
        # Whole numbers only where int(interval(...)) says so.
        low, high = (0.0 if end is None else end for end in (value.start, value.end))
        return _checked(Range(low, high, None, isinstance(low, int) and isinstance(high, int), log), key)
    if isinstance(value, RangeSweep) and not log:
        # A range of Hydra's ends before its stop.
        start, stop, step = value.start or 0, value.stop or 0, value.step
        steps = math.ceil(round((stop - start) / step, 9)) - 1
        high = start + steps * step
        whole = all(isinstance(number, int) for number in (start, stop, step))
        return _checked(Range(start, high, step, whole), key)
    return Choice(tuple(one.sweep_string_iterator()))


def _checked(found: Range, key: str) -> Range:
    good = found.low <= found.high and not (found.log and found.low <= 0)
    require(
        good,
        f"{key}: from {found.low:g} to {found.high:g} there is nothing to search.",
        "Give the smaller number first; with tag(log,...) both must be above 0.",
    )
    return found
