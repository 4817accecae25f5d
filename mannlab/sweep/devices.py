"""What this machine has for several jobs to share: GPUs, cores, memory. Nothing heavy is imported."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mannlab.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPUS = Path("/proc/driver/nvidia/gpus")
MEMORY = Path("/proc/meminfo")
JOB_BYTES = 2 * 2**30  # what a job is expected to need of the main memory
# Read by OpenMP, MKL, OpenBLAS, numba and numexpr when they are loaded; the last one is ours.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CORES = "MANNLAB_CORES"


def gpus(environment: Mapping[str, str] = os.environ, listing: Path = GPUS) -> list[str]:
    """The GPUs of this machine, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if VISIBLE in environment:
        return [word.strip() for word in environment[VISIBLE].split(",") if word.strip() not in ("", "-1")]
    if listing.is_dir():
        return [str(number) for number in range(len(list(listing.iterdir())))]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    said = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in said.splitlines()))]


def shared(wanted: Any) -> list[str]:
    """The GPUs that ``sweep.devices`` means; a device may be in it several times."""
    if wanted in ("none", None):
        return []
    return [str(name) for name in wanted] if isinstance(wanted, (list, tuple)) else gpus()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_bytes(listing: Path = MEMORY) -> int | None:
    """Main memory that is available; None where the system does not say."""
    try:
        lines = listing.read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None


def needs(config: Mapping[str, Any], found: list[str]) -> tuple[int, int]:
    """Processes and GPUs of a job with this configuration, where there are the GPUs ``found``.

    Raises:
        ConfigError: it names GPUs by number, or several machines, which the sweep cannot give it.
    """
    trainer = config.get("trainer") or {}
    if trainer.get("num_nodes") not in (None, 1):
        raise ConfigError("trainer.num_nodes: jobs of a sweep run on one machine each.", "Leave it at 1.")
    devices, accelerator = trainer.get("devices"), trainer.get("accelerator", "auto")
    on_gpu = bool(found) and accelerator in ("auto", "gpu", "cuda")
    if isinstance(devices, (list, tuple)) and on_gpu:
        raise ConfigError(
            f"trainer.devices: {list(devices)} names GPUs, which are shared out by the sweep.",
            f"Say how many a job needs: trainer.devices={len(devices)}, and which there are: "
            f"sweep.devices={list(devices)}.",
        )
    everything = devices in ("auto", -1, "-1", None)
    count = (len(set(found)) if on_gpu else 1) if everything else _count(devices)
    return max(1, count), count if on_gpu else 0


def _count(devices: Any) -> int:
    if isinstance(devices, (list, tuple)):
        return len(devices)
    return int(devices) if str(devices).isdigit() else 1


def several(cores_each: int, available: int, memory: int | None) -> int:
    """How many jobs at once ``sweep.jobs=auto`` means on a CPU with ``available`` cores."""
    by_memory = available if memory is None else memory // JOB_BYTES
    return max(1, min(available // cores_each, by_memory))


def share(threads: Any, at_once: int, processes: int) -> dict[str, str]:
    """The environment that keeps a job to its share of the cores.

    Args:
        threads: ``sweep.threads``.
        at_once: jobs that run at the same time.
        processes: of this job.
    """
    each = max(1, cores() // (at_once * processes)) if threads == "auto" else int(threads)
    return {**dict.fromkeys(THREADS, str(each)), CORES: str(each)}
