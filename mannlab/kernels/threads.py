"""Sharing compiled work between threads, as many as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mannlab")


# The threads stay behind in the parent.
os.register_at_fork(after_in_child=_pool.cache_clear)


def share(function: Callable[..., Any], count: int, *arguments: Any, least: int = 1) -> None:
    """Call ``function(low, high, *arguments)`` for parts of ``range(count)``, on all threads at once.

    Args:
        function: compiled code that lets go of the interpreter's lock.
        count: how much there is to do.
        arguments: handed on.
        least: the smallest part that is worth a thread.
    """
    threads = max(1, min(torch.get_num_threads(), count // max(least, 1)))
    if threads == 1:
        function(0, count, *arguments)
        return
    cuts = [count * i // threads for i in range(threads + 1)]
    waiting = [_pool(threads - 1).submit(function, low, high, *arguments) for low, high in pairwise(cuts[1:])]
    function(0, cuts[1], *arguments)
    for part in waiting:
        part.result()
