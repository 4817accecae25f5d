"""Numbers in words, in two languages: real text in any amount, without a download (package ``num2words``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mannlab.datasets.parallel import SPLITS, Pairs, hashed
from mannlab.errors import ConfigError, choices, require
from mannlab.progress import progress

LARGEST = 10**12  # above it some languages have no words, or take for ever
SMALL = 100  # below it are the words that larger numbers are made of: training has them all
SHARE = 10  # one larger number in so many is for validation, another for the test
HELD_OUT = 500  # numbers in each of the two
SEED = 1


def number_pairs(languages: list[str], pairs: int, largest: int) -> dict[str, Pairs]:
    """Different numbers from 0 to ``largest``, as many of each length in digits as there can be.

    Whether a number is for training, validation or the test is decided by its hash alone, so the same
    numbers are held out whatever the other options. Those below 100 are all for training.

    Args:
        languages: source and target, as ``num2words`` names them.
        pairs: most numbers for training; fewer where there are not so many.
        largest: the largest number.

    Raises:
        ConfigError: ``num2words`` is not installed, or does not know a language or a number's size.
    """
    known = _languages()
    for language in languages:
        require(
            language in known,
            f"task.languages: there is no language '{language}' for task.source=numbers.",
            choices(language, known, "languages"),
        )
    require(pairs >= 1, f"task.pairs: {pairs} is not allowed.", "It must be at least 1.")
    require(
        SMALL < largest < LARGEST, f"task.largest: {largest} is not allowed.", "It must be in [101, 10^12)."
    )
    found = {split: Pairs() for split in SPLITS}
    numbers = _numbers(pairs, largest)
    for number, split in progress(numbers, "Spelling numbers", "numbers"):
        one, other = (_spelled(number, language) for language in languages)
        found[split].add(one, other, f"number {number}")
    return found


def part_of(number: int) -> str:
    """The split that a number belongs to."""
    if number < SMALL:
        return "train"
    return {0: "val", 1: "test"}.get(hashed(str(number), "number") % SHARE, "train")


def _numbers(pairs: int, largest: int) -> list[tuple[int, str]]:
    wanted = {"train": pairs, "val": HELD_OUT, "test": HELD_OUT}
    rng = np.random.Generator(np.random.Philox(SEED))
    digits = len(str(largest))
    seen: set[int] = set()
    chosen: list[tuple[int, str]] = []
    order = list(range(SMALL))
    # Where nearly all numbers are wanted, drawing would find the last of them late.
    for _ in range(40):
        for number in order:
            split = part_of(number)
            if number not in seen and wanted[split] > 0:
                wanted[split] -= 1
                chosen.append((number, split))
            seen.add(number)
        missing = sum(wanted.values())
        if missing == 0 or len(seen) > largest:
            break
        lengths = rng.integers(3, digits + 1, 4 * missing)
        lows = 10.0 ** (lengths - 1)
        highs = np.minimum(10.0**lengths, largest + 1)
        order = np.floor(lows + rng.random(len(lengths)) * (highs - lows)).astype(np.int64).tolist()
    return chosen


def _languages() -> Any:
    return _package().CONVERTER_CLASSES


def _spelled(number: int, language: str) -> str:
    spell: Callable[..., str] = _package().num2words
    try:
        return spell(number, lang=language).strip()
    # Whatever it stumbles over where a language's words end: NotImplementedError, TypeError, KeyError, ...
    except Exception as error:
        raise ConfigError(
            f"task.largest: num2words cannot say {number} in '{language}'.", "Give a smaller task.largest."
        ) from error


def _package() -> Any:
    try:
        import num2words
    except ImportError as error:
        raise ConfigError(
            "task.source: numbers needs the package 'num2words'.",
            "pip install 'mannlab[text]', or give a text of your own: task.train=[source.txt,target.txt]",
        ) from error
    return num2words
