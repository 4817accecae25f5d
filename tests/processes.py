"""Processes that start at once: forked from one that has imported what trains already.

What they inherit is imported modules, nothing else. Where importing matters (an installed copy, a separate
environment, a program that is killed) tests start an interpreter themselves.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
# The last three are imported when the first optimizer is made.
FORKS.set_forkserver_preload(
    ["mannlab.training.run", "torch._dynamo", "torch.utils.tensorboard", "hydra.main"]
)


@dataclass
class Started:
    """A process that runs, and the file that takes all it says."""

    process: multiprocessing.process.BaseProcess
    log: Path

    def end(self, timeout: float = 240) -> tuple[int, str]:
        """Its exit status, and what it said."""
        self.process.join(timeout)
        late = self.process.exitcode is None
        self.process.kill()
        said = self.log.read_text(encoding="utf-8")
        assert not late, f"still running after {timeout} s\n{said}"
        return self.process.exitcode or 0, said


def start(
    run: Callable[..., Any],
    *arguments: Any,
    cwd: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Call a function of a module in a process of its own.

    Args:
        run: a function at the top of a module.
        arguments: of it, to be pickled.
        cwd: its working directory.
        log: a file for what it says.
        environment: variables beside those of this process.
    """
    settings = {**os.environ, **(environment or {})}
    process = FORKS.Process(target=_enter, args=(run, arguments, cwd, log, settings))
    process.start()
    return Started(process, log)


def program(arguments: Sequence[str]) -> None:
    """``python -m mannlab``."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(Path.cwd()), *filter(None, places)]
    sys.argv = ["mannlab", *arguments]
    runpy.run_module("mannlab", run_name="__main__", alter_sys=True)


def _enter(
    run: Callable[..., Any], arguments: Sequence[Any], cwd: Path, log: Path, settings: Mapping[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(cwd)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status: Any = 0
    try:
        run(*arguments)
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()  # as an interpreter would; a fork of multiprocessing leaves without
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
