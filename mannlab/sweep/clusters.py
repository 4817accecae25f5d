"""Engines of other packages: submitit (SLURM, or this machine) and Ray.

Their workers start the job's own process as this machine's engine does, so that a job is the same wherever
it runs; a folder that all machines see carries what it says, and word to stop.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mannlab.errors import ConfigError
from mannlab.sweep import devices, jobs
from mannlab.sweep.engines import Engine, Handle, Local, spawn
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job

UNLIMITED = 10_000  # jobs at once: the cluster has a queue of its own
ROUNDS = 4  # that the trials of a search take at least: nothing is learnt from those that run together
FOLDER = ".submitit"


@dataclass
class Remote:
    """A job, to be called in a worker.

    Attributes:
        folder: of the job.
        arguments: of the worker's own Python.
        environment: besides what the worker has.
        grace: seconds to save in, when the cluster wants the machine back.
    """

    folder: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    grace: float = 60

    def __call__(self) -> int:
        """Run it; returns its exit code."""
        (Path(self.folder) / jobs.QUEUED).unlink(missing_ok=True)
        environment = jobs.clean(os.environ) | self.environment | {jobs.GRACE: str(self.grace)}
        self._process = spawn(Path(self.folder), environment, [sys.executable, *self.arguments])
        return self._process.wait()

    def checkpoint(self) -> Any:
        """What submitit calls before the machine is taken away: the job saves, and is queued again."""
        import submitit

        process: subprocess.Popen[bytes] | None = self.__dict__.pop("_process", None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.grace)
        with suppress(OSError):
            (Path(self.folder) / jobs.QUEUED).touch()
        return submitit.helpers.DelayedSubmission(
            Remote(self.folder, self.arguments, self.environment, self.grace)
        )


def remote_of(job: Job, environment: dict[str, str], options: Options) -> Remote:
    """A job for a worker."""
    return Remote(str(job.folder), jobs.command(job.folder)[1:], environment, options.grace_seconds)


def at_most(options: Options) -> int:
    """How many jobs at once with ``sweep.jobs=auto``."""
    return UNLIMITED if options.search is None else math.ceil(options.search.trials / ROUNDS)


def package(name: str) -> Any:
    """An optional package, and ours where its workers find it.

    Raises:
        ConfigError: it is not installed.
    """
    from importlib import import_module

    try:
        found = import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"sweep.engine: the package {name} is not installed.", f'pip install "mannlab[{name}]"'
        ) from error
    os.environ["PYTHONPATH"] = jobs.reachable(os.environ)
    return found


# ---------------------------------------------------------------------- submitit


class Submitted(Handle):
    """A job of submitit's."""

    def __init__(self, job: Any, folder: Path, where: str) -> None:
        self.job, self.folder, self.where = job, folder, where

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception as error:
            self._note(error)
            return 1

    def _note(self, error: Exception) -> None:
        """What submitit says of a job that could not run goes where the job's own words go."""
        with suppress(OSError), (self.folder / jobs.LOG).open("a", encoding="utf-8") as log:
            log.write(f"{type(error).__name__}: {error}\n")

    def ask(self) -> None:
        """It heeds the word that the schedule leaves in its folder."""

    def kill(self) -> None:
        with suppress(OSError, subprocess.SubprocessError):
            self.job.cancel(check=False)


def executor(options: Options, folder: Path, cluster: str) -> Any:
    """submitit's executor with ``sweep.options``.

    Raises:
        ConfigError: the package or the cluster is missing, or it refuses an option.
    """
    submitit = package("submitit")
    try:
        found = submitit.AutoExecutor(folder=folder / FOLDER / "%j", cluster=cluster)
        given = {key: value for key, value in options.options.items() if value is not None}
        found.update_parameters(**given)
    except Exception as error:
        raise ConfigError(
            f"sweep.options: submitit refused them: {error}",
            "submitit_slurm needs a machine that SLURM's commands work on; submitit_local does not.",
        ) from error
    return found


class SubmititLocal(Local):
    """submitit on this machine, its GPUs and cores divided as by this machine's own engine."""

    def __init__(self, options: Options, folder: Path) -> None:
        super().__init__(options)
        self.executor = executor(options, folder, "local")

    def launch(self, job: Job, environment: dict[str, str]) -> Handle:
        remote = remote_of(job, environment, self.options)
        return Submitted(self.executor.submit(remote), job.folder, "")


class Slurm(Engine):
    """submitit's SLURM jobs, one for each job of the sweep."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.executor = executor(options, folder, "slurm")
        self.room = at_most(options) if options.jobs == "auto" else int(options.jobs)

    def start(self, job: Job) -> Handle:
        each = int(self.options.options.get("cpus_per_task") or 1) // job.processes
        threads = max(1, each) if self.options.threads == "auto" else self.options.threads
        environment = devices.share(job.threads or threads, 1, job.processes)
        submitted = self.executor.submit(remote_of(job, environment, self.options))
        return Submitted(submitted, job.folder, f"slurm {submitted.job_id}")


# ---------------------------------------------------------------------- Ray


class RayTask(Handle):
    """A task of Ray's."""

    def __init__(self, ray: Any, reference: Any, folder: Path) -> None:
        self.ray, self.reference, self.folder = ray, reference, folder

    def poll(self) -> int | None:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self.ray.get(self.reference))
        except Exception as error:
            with suppress(OSError), (self.folder / jobs.LOG).open("a", encoding="utf-8") as log:
                log.write(f"{type(error).__name__}: {error}\n")
            return 1

    def ask(self) -> None:
        """It heeds the word that the schedule leaves in its folder."""

    def kill(self) -> None:
        # The job's own process notices that its parent is gone.
        self.ray.cancel(self.reference, force=True)


class Ray(Engine):
    """Tasks on a Ray cluster: the one that ``sweep.options.address`` names, or one on this machine."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.ray = package("ray")
        self.options, given = options, dict(options.options)
        self.cpus = float(given.pop("num_cpus", None) or 1)
        self.gpus = given.pop("num_gpus", "auto")
        address, init = given.pop("address", None), dict(given.pop("init", None) or {})
        self.more = given
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            quiet["include_dashboard"] = False
        try:
            self.ray.init(address=address, **(quiet | init))
        except Exception as error:
            raise ConfigError(
                f"sweep.options.address: Ray cannot be reached: {error}",
                "Give the address of a cluster, auto on one of its machines, or null to start one here.",
            ) from error
        self.room = 1 if options.jobs == "auto" else int(options.jobs)

    def plan(self, waiting: list[Job]) -> None:
        resources = self.ray.cluster_resources()
        most = max((self._gpus(job) for job in waiting), default=0)
        if self.cpus > resources.get("CPU", 0) or most > resources.get("GPU", 0):
            raise ConfigError(
                f"sweep.options: a job wants {self.cpus:g} cores and {most:g} GPUs; the cluster has "
                f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}.",
                "Give sweep.options.num_cpus and num_gpus that it has.",
            )
        if self.options.jobs == "auto":
            by_gpu = int(resources.get("GPU", 0) // most) if most else UNLIMITED
            at_once = min(int(resources["CPU"] // self.cpus), by_gpu, at_most(self.options))
            self.room = max(1, at_once)

    def _gpus(self, job: Job) -> float:
        if self.gpus in ("auto", None):
            return float(job.gpus) if self.ray.cluster_resources().get("GPU", 0) else 0.0
        return float(self.gpus)

    def start(self, job: Job) -> Handle:
        threads = max(1, int(self.cpus) // job.processes)
        threads = threads if self.options.threads == "auto" else self.options.threads
        environment = devices.share(job.threads or threads, 1, job.processes)
        remote = remote_of(job, environment, self.options)
        settings = {"num_cpus": self.cpus, "num_gpus": self._gpus(job), "max_retries": 0, **self.more}
        reference = self.ray.remote(_call).options(**settings).remote(remote)
        return RayTask(self.ray, reference, job.folder)

    def close(self) -> None:
        self.ray.shutdown()


def _call(remote: Remote) -> int:
    return remote()


ENGINES: dict[str, Callable[[Options, Path], Engine]] = {
    "submitit_local": SubmititLocal,
    "submitit_slurm": Slurm,
    "ray": Ray,
}
