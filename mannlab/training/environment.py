"""The process a run lives in: seeds, threads, and other libraries' chatter."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import lightning.pytorch
import torch

from mannlab.errors import ConfigError

# Advice that is not for our users: data comes from a counter, loaders are made here.
NOISE = (
    r".*does not have many workers.*",
    r".*is smaller than the logging interval.*",
    r".*GPU available but not used.*",
    r".*It is recommended to use `self\.log.*",
    r".*Experiment logs directory .* exists and is not empty.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    # After a run with trainer.max_time, resumed without one.
    r".*Please add the following callbacks: \['Timer'\].*",
    r".*Starting from v1\.9\.0, `tensorboardX`.*",
    r".*TypedStorage is deprecated.*",
    r".*Found \d+ module\(s\) in eval mode at the start of training.*",
    r".*multi-threaded, use of fork.*",
    r".*You are using a CUDA device .* that has Tensor Cores.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*The `srun` command is available on your system.*",
    r".*Consider setting `persistent_workers=True`.*",
    # Averaging callbacks; nothing is sharded here.
    r".*WeightAveraging callback with a model that overrides the configure_model.*",
)


# glibc's mallopt: parameters, and their new values in bytes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
HELD, MAPPED = 2**31 - 1, 2**30


def quiet() -> None:
    """Leave Lightning's warnings that mean something; drop its adverts and its advice."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, in loader processes too."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed: {seed!r} is not allowed.", "Give a whole number from 0 to 4294967295.")
    lightning.pytorch.seed_everything(seed, workers=True, verbose=False)


def hold_memory() -> bool:
    """Keep what tensors free for the next ones, up to 2 GiB; returns whether the C library can be told.

    By default glibc gives each larger block back and gets it anew, zeroed page by page: two thirds of the
    time of a convolution on a CPU. Blocks of 1 GiB and more are still given back at once.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, HELD) and mallopt(MMAP_THRESHOLD, MAPPED))


def choose_threads(config: Mapping[str, Any]) -> int:
    """Torch threads per process for ``threads=auto``.

    One for small batches: the operations of a step are so small that a second thread costs more than it
    does, several times more when the machine is shared. One for every 32 sequences of a large batch, and all
    cores for convolutions over images.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A job of a sweep has its share of them.
    share = os.environ.get("MANNLAB_CORES", "")
    cores = min(cores, int(share)) if share.isdigit() and int(share) else cores
    encoder = str((config.get("task") or {}).get("encoder", ""))
    if encoder == "conv":
        return cores
    batch = config.get("batch_size")
    return max(1, min(cores, batch // 32)) if isinstance(batch, int) else 1


def set_threads(config: Mapping[str, Any]) -> int:
    """Follow ``threads``: ``auto`` or a number; returns the number. Memory is held from then on.

    Raises:
        ConfigError: neither of them.
    """
    threads = config.get("threads", "auto")
    if threads == "auto":
        threads = choose_threads(config)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads: {threads!r} is not allowed.", "Give a whole number above 0, or auto.")
    torch.set_num_threads(threads)
    hold_memory()
    return threads
