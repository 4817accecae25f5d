"""Tab completion: Hydra's, with our commands before it."""

from __future__ import annotations

import os
import sys
from glob import glob
from pathlib import Path

from mannlab import compose, registry
from mannlab.__main__ import COMMANDS
from mannlab.cli import keywords, train

LINE = "COMP_LINE"
REPORT = ("by=", "metric=", "to=")


def main(arguments: list[str]) -> int:
    """Answer what a shell asks (``-sc query=bash``), or install (``-sc install=bash``)."""
    line = os.environ.get(LINE, "")
    if not any(word.startswith("query=") for word in arguments):
        # What is installed is for the command mannlab, however it was asked for: Hydra cannot do python -m.
        before, sys.argv = sys.argv, ["mannlab", *sys.argv[1:]]
        try:
            return train.main(arguments)
        finally:
            sys.argv = before
    words = line.split()[1:]
    new = line.endswith(" ") or not words
    last = "" if new else words[-1]
    if words and words[0] in COMMANDS and words[0] != "train" and (new or len(words) > 1):
        print(*own(words[0], last))
        return 0
    if len(words) <= (0 if new else 1):
        print(*(f"{name} " for name in sorted(COMMANDS) if name.startswith(last)))
    if last.startswith("trainer."):
        more = sorted(keywords.of_lightning() - keywords.listed())
        print(*(f"trainer.{key}=" for key in more if f"trainer.{key}".startswith(last)))
    if words and words[0] == "train":
        line = line.replace(" train", "", 1)
    old_line = os.environ.get(LINE)
    os.environ[LINE] = line
    try:
        # What follows plugins= in the line must be known to be completed.
        return train.main([*arguments, *(word for word in words if word.startswith("plugins="))])
    finally:
        os.environ.pop(LINE)
        if old_line is not None:
            os.environ[LINE] = old_line


def own(command: str, last: str) -> list[str]:
    """Words that may follow one of our commands."""
    if command == "list":
        from mannlab.cli import yamls

        found = yamls.groups(compose.yaml_folders())
    elif command == "bench":
        from mannlab.cli import bench

        found = list(bench.names())
    elif command == "new":
        found = [*registry.ROOMS, "--package"]
    elif command == "report":
        key, equals, begun = last.partition("=")
        found = [f"to={path}" for path in files(begun)] if key == "to" and equals else [*REPORT, *paths(last)]
    elif last.startswith(("run=", "sweep=")):
        key, _, begun = last.partition("=")
        found = [f"{key}={path}" for path in paths(begun)]
    elif command == "resume":
        found = ["last", "run=", "sweep=", "failed=keep", "sweep.jobs=", *paths(last)]
    elif command not in ("eval", "predict", "inspect"):
        found = paths(last)
    elif command == "predict" and last.startswith(("file=", "out=")):
        key, _, begun = last.partition("=")
        found = [f"{key}={path}" for path in files(begun)]
    else:
        found = ["last", "run=", "ckpt=best", "ckpt=last", "task.", "batch_size=", "trainer.accelerator="]
        found += ["text=", "file=", "out="] if command == "predict" else []
        found += ["sample=", "split=", "steps=", "to="] if command == "inspect" else []
        found += paths(last)
    return [word for word in found if word.startswith(last)]


def files(prefix: str) -> list[str]:
    """Folders and files that begin like this."""
    return sorted(f"{path}/" if Path(path).is_dir() else path for path in glob(f"{prefix}*"))


def paths(prefix: str) -> list[str]:
    """Folders, and checkpoints, that begin like this."""
    found = [path for path in glob(f"{prefix}*") if Path(path).is_dir() or path.endswith(".ckpt")]
    return sorted(f"{path}/" if Path(path).is_dir() else path for path in found)
