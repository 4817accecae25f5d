"""Where jobs run. This machine's own engine; those of clusters are in ``clusters``."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mannlab.errors import ConfigError
from mannlab.files import read_json
from mannlab.sweep import devices, jobs
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job, Lock


class Handle(ABC):
    """A job that was started."""

    where: str = ""

    @abstractmethod
    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    @abstractmethod
    def ask(self) -> None:
        """Ask it to end after the present step."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once, with every process that it started."""


class Engine(ABC):
    """Starts jobs.

    Attributes:
        room: how many at once.
    """

    room: int

    def plan(self, waiting: list[Job]) -> None:  # noqa: B027 (most engines have nothing to plan)
        """Be told of the jobs that are to run, before the first one starts.

        Raises:
            ConfigError: a job that this engine can never run.
        """

    def fits(self, job: Job) -> bool:
        """Whether there is a place for it now, beside those that run."""
        return True

    @abstractmethod
    def start(self, job: Job) -> Handle:
        """Start it."""

    def close(self) -> None:  # noqa: B027
        """Nothing more will be started."""


# ---------------------------------------------------------------------- this machine


class Process(Handle):
    """A process, in a session of its own: Ctrl-C in the terminal does not reach it by itself."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def ask(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def spawn(folder: Path, environment: Mapping[str, str], command: list[str]) -> subprocess.Popen[bytes]:
    """Start a job's process; what it prints goes to its own log file."""
    with (folder / jobs.LOG).open("ab") as log:
        # A sign of life, also where an earlier attempt has left a log.
        os.utime(folder / jobs.LOG)
        return subprocess.Popen(
            command,
            # Its guard watches this process.
            env=dict(environment) | {jobs.PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Local(Engine):
    """Several jobs at once on this machine, GPUs and cores divided among them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.devices = devices.shared(options.devices)
        self.pinned = bool(self.devices)
        self.room = 1 if options.jobs == "auto" else int(options.jobs)
        self._free = list(self.devices)
        self._used: dict[int, tuple[Handle, list[str]]] = {}

    def plan(self, waiting: list[Job]) -> None:
        for job in waiting:
            if self.pinned and job.gpus > len(set(self.devices)):
                raise ConfigError(
                    f"trainer.devices: a job needs {job.gpus} GPUs; the sweep has {len(set(self.devices))}.",
                    "Give the sweep more with sweep.devices, or a job fewer with trainer.devices.",
                )
        if self.options.jobs == "auto":
            self.room = max(self.room, self._room(waiting))

    def _room(self, waiting: list[Job]) -> int:
        on_gpu = [job.gpus for job in waiting if job.gpus]
        if on_gpu and self.pinned:
            return len(self.devices) // min(on_gpu)
        most = max((job.processes * (job.threads or 1) for job in waiting), default=1)
        at_once = devices.several(most, devices.cores(), devices.free_bytes())
        return 1 if on_gpu else max(1, min(at_once, len(waiting)))

    def fits(self, job: Job) -> bool:
        self._release()
        return not (self.pinned and job.gpus) or len(set(self._free)) >= job.gpus

    def start(self, job: Job) -> Handle:
        environment = devices.share(job.threads or self.options.threads, self.room, job.processes)
        taken: list[str] = []
        if self.pinned and job.gpus:
            # A device may be in the list twice, for two jobs.
            taken = list(dict.fromkeys(self._free))[: job.gpus]
            for name in taken:
                self._free.remove(name)
            environment[devices.VISIBLE] = ",".join(taken)
        handle = self.launch(job, environment)
        handle.where = f"GPU {','.join(taken)}" if taken else ""
        self._used[job.number] = (handle, taken)
        return handle

    def launch(self, job: Job, environment: dict[str, str]) -> Handle:
        """Start its process with an environment that goes over the present one."""
        more = {jobs.GRACE: str(self.options.grace_seconds), **environment}
        return Process(spawn(job.folder, jobs.clean(os.environ) | more, jobs.command(job.folder)))

    def _release(self) -> None:
        for number, (handle, taken) in list(self._used.items()):
            if handle.poll() is not None:
                self._free += taken
                del self._used[number]


class Adopted(Handle):
    """A job of a sweep whose program died, while the job itself lives on."""

    def __init__(self, job: Job) -> None:
        self.folder, self.where = job.folder, job.where
        self._lock = Lock(job.folder)

    def poll(self) -> int | None:
        if self._lock.held():
            return None
        status = read_json(self.folder / jobs.SUMMARY).get("status", "failed")
        return 1 if status == "failed" else 0

    def ask(self) -> None:
        jobs.ask_to_stop(self.folder, "interrupted")

    def kill(self) -> None:
        """It is not ours to kill; it ends by itself once it has saved."""
        self.ask()
