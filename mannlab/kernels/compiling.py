"""Saying why nothing happens for a while."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def announce(function: Any, what: str, seconds: int) -> None:
    """Log that ``what`` is being compiled, if ``function`` is not there from an earlier call or run.

    Args:
        function: from ``numba.njit(cache=True)``.
        what: for people.
        seconds: about how long it takes.
    """
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-*.nbi"
    if not function.signatures and not any(Path(function.stats.cache_path).glob(name)):
        log.info("Compiling %s for this machine: some %d seconds, the first time only.", what, seconds)
