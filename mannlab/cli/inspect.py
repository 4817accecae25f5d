"""``inspect``: one sample through a trained run, step by step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mannlab.cli import evaluate, logs, saved
from mannlab.errors import ConfigError

USAGE = """usage: mannlab inspect RUN [sample=N] [split=NAME] [steps=FIRST:LAST] [to=FOLDER] [key=value ...]

Runs one sample through a run's checkpoint and shows what is read and written at each step: in the terminal,
as a picture (inspect.png), as an animation (inspect.gif) and as a page to step through (inspect.html, which
needs nothing but a browser).
RUN is a run folder (or run=FOLDER), a .ckpt file in one, or last: the newest run in outputs/;
ckpt=best|last|FILE chooses another checkpoint.
  sample=3               the sample of that number (0)
  split=length_20        a test set by the name in its metrics; also val and train (test)
  steps=40               the first 40 steps; steps=10:50 those from 10 to 49 (all)
  to=FOLDER              where the files go (inspect/<split>_<sample> in the run's folder)
Overrides are those of eval, such as task.lengths=[20] with split=length_20."""

OWN = ("sample", "split", "steps", "to")


def main(arguments: list[str]) -> int:
    """Look at a sample; returns the exit code."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0
    own, rest = read_arguments(arguments)
    if not rest:
        raise ConfigError("Which run?", f"{USAGE}\n\n{saved.newest()}")
    word, which, overrides = evaluate.read_arguments(rest)
    index, part = whole("sample", own.get("sample", "0")), read_steps(own.get("steps"))
    run = saved.named(word)
    config, checkpoint = evaluate.prepare(run, which, overrides, rest)
    logs.console("stderr")
    from rich.console import Console

    from mannlab.inspection import files, terminal
    from mannlab.inspection.record import look
    from mannlab.inspection.sample import window

    sample = look(config, checkpoint, own.get("split"), index)
    if part is not None:
        first, last = part
        if first >= sample.steps:
            raise ConfigError(f"steps: the sample has only {sample.steps} steps.", "They are counted from 0.")
        sample = window(sample, first, min(last, sample.steps))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    terminal.show(sample, console)
    target = Path(own["to"]).expanduser() if "to" in own else None
    name = re.sub(r"\W+", "_", sample.facts["sample"].partition(" of ")[2])
    written = files.write(sample, target or saved.folder(run) / "inspect" / f"{name}_{index}")
    for kind, path in written.items():
        print(f"{kind:<10}  {path}")
    return 0


def read_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What is ``inspect``'s own, and the rest, which is read as ``eval`` does.

    Raises:
        ConfigError: a key is misspelt, or has no value.
    """
    own, rest = evaluate.own_arguments(arguments, OWN)
    evaluate.check_given(own, USAGE)
    return own, rest


def whole(key: str, value: str) -> int:
    """A whole number, 0 or more.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"\d+", value):
        raise ConfigError(f"{key}: '{value}' is not a number.", f"Give a whole number, such as {key}=3.")
    return int(value)


def read_steps(text: str | None) -> tuple[int, int] | None:
    """First step and one past the last; None: all.

    Raises:
        ConfigError: it is neither a number nor a range.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d*):)?(\d*)", text)
    if found is None or text == ":":
        raise ConfigError(
            f"steps: '{text}' cannot be read.", "Give a number or a range: steps=40, steps=10:50."
        )
    first, last = int(found[1] or 0), int(found[2]) if found[2] else 10**9
    if last <= first:
        raise ConfigError(f"steps: {text} is empty.", "The last must be above the first: steps=10:50.")
    return first, last
