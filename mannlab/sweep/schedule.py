"""The loop that keeps jobs running until there are none left."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mannlab.errors import MannlabError
from mannlab.files import read_json
from mannlab.sweep import jobs
from mannlab.sweep.engines import Adopted, Engine, Handle
from mannlab.sweep.live import View
from mannlab.sweep.record import FAILED, INTERRUPTED, RUNNING, Job, Lock, Sweep

POLL = 0.2  # seconds between looks at the processes
LOOK = 1.0  # seconds between looks at what the jobs say


class Source(Protocol):
    """Where jobs come from: a list, or a search that chooses the next by what came of those before."""

    total: int | None

    def plan(self) -> list[Job]:
        """The jobs that will come, as far as they are known."""

    def next(self) -> Job | None:
        """One more job; None if there is none at present."""

    def hopeless(self, job: Job, pulse: dict[str, Any]) -> bool:
        """Whether a running job shall be stopped for what it has measured so far."""

    def ended(self, job: Job) -> None:
        """A job came to its end."""


class Listed:
    """Jobs that are known from the start."""

    def __init__(self, waiting: Sequence[Job]) -> None:
        self.waiting = list(waiting)
        self.total: int | None = None

    def plan(self) -> list[Job]:
        """All of them."""
        return list(self.waiting)

    def next(self) -> Job | None:
        """The first that has not run."""
        return self.waiting.pop(0) if self.waiting else None

    def hopeless(self, job: Job, pulse: dict[str, Any]) -> bool:
        """None is."""
        return False

    def ended(self, job: Job) -> None:
        """Nothing to learn."""


@dataclass
class Running:
    """A job at work.

    Attributes:
        heard: when the job's files last changed, by the clock of their disk.
        sign: when that was seen, by ours; None for a job that still waits in the queue of a cluster.
        stopped: why the sweep asked it to stop, or killed it; empty if it did not.
        deadline: when it is killed, having been asked.
    """

    job: Job
    handle: Handle
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0
    heard: float = 0.0
    sign: float | None = None
    pulse: dict[str, Any] = field(default_factory=dict)
    stopped: str = ""
    deadline: float | None = None


class Schedule:
    """Runs the jobs of a source.

    Args:
        sweep: the record to keep.
        engine: where jobs run.
        source: where they come from.
        view: what the user sees of it.
    """

    def __init__(self, sweep: Sweep, engine: Engine, source: Source, view: View) -> None:
        self.sweep, self.engine, self.source, self.view = sweep, engine, source, view
        self.options = sweep.options
        self.running: list[Running] = []
        self.stopping = ""
        self.signals = 0
        self._held: Job | None = None
        self._looked = 0.0

    def run(self) -> None:
        """Until all is done, or the user has had enough."""
        self.sweep.status = RUNNING
        self.sweep.save()
        try:
            with self._stop_requests(), self.view:
                while self._step():
                    time.sleep(POLL)
        finally:
            for one in self.running:
                one.handle.kill()
            self.engine.close()
            self.sweep.status = INTERRUPTED if self.stopping else "done"
            self.sweep.stopped_by = self.stopping
            self.sweep.save()

    def _step(self) -> bool:
        if self.signals and not self.stopping:
            self._stop_all(INTERRUPTED)
        if self.signals > 1:
            for one in self.running:
                one.handle.kill()
        for one in list(self.running):
            self._look_at(one)
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            for one in self.running:
                self._listen(one)
            self.view.tick(self.sweep, self.running, self.source.total)
        while not self.stopping and len(self.running) < self.engine.room and self._fill():
            pass
        return bool(self.running)

    def _fill(self) -> bool:
        job = self._held or self.source.next()
        self._held = None
        if job is None:
            return False
        if not self.engine.fits(job):
            self._held = job
            return False
        self._start(job)
        return True

    def _start(self, job: Job) -> None:
        job.status, job.code = RUNNING, None
        if job not in self.sweep.jobs:
            self.sweep.jobs.append(job)
        handle: Handle
        heard = 0.0
        if Lock(job.folder).held():
            handle = Adopted(job)
        else:
            job.attempts += 1
            heard = _heard(job.folder)
            jobs.fresh(job.folder)
            # On record before it runs: a job is never forgotten.
            self.sweep.save()
            try:
                handle = self.engine.start(job)
            except (OSError, MannlabError) as error:
                self._end(Running(job, _Never()), f"It could not be started: {error}")
                return
        job.where = handle.where
        self.running.append(Running(job, handle, before=job.seconds, heard=heard))
        self.sweep.save()
        self.view.started(job, isinstance(handle, Adopted))

    def _look_at(self, one: Running) -> None:
        code = one.handle.poll()
        if code is not None:
            one.job.code = code
            self.running.remove(one)
            self._end(one, one.stopped)
        elif one.deadline is not None and time.monotonic() > one.deadline:
            one.handle.kill()

    def _end(self, one: Running, stopped: str) -> None:
        job = one.job
        job.seconds = one.before + time.monotonic() - one.began
        jobs.settle(job, stopped)
        self.source.ended(job)
        self.sweep.save()
        self.view.ended(job)
        if job.status == FAILED and self.options.on_error == "stop" and not self.stopping:
            self._stop_all("a job failed, and sweep.on_error=stop")

    def _stop_all(self, why: str) -> None:
        self.stopping = why
        self.view.stopping(why, len(self.running))
        for one in self.running:
            self._stop(one, INTERRUPTED)

    def _stop(self, one: Running, why: str) -> None:
        if not one.stopped:
            one.stopped = why
            # In this order: a run that has had a signal heeds no word, and the second signal would be one
            # too many.
            one.handle.ask()
            with suppress(OSError):
                jobs.ask_to_stop(one.job.folder, why)
            one.deadline = time.monotonic() + self.options.grace_seconds

    def _listen(self, one: Running) -> None:
        """Take note of what a job says, or of its saying nothing."""
        job = one.job
        pulse = read_json(job.folder / jobs.PROGRESS)
        if pulse.get("time", 0) > one.pulse.get("time", 0):
            one.pulse = pulse
            if not one.stopped and self.source.hopeless(job, pulse):
                self._stop(one, jobs.PRUNED)
        heard, now = _heard(job.folder), time.monotonic()
        if (job.folder / jobs.QUEUED).exists():
            one.sign = None
        elif heard > one.heard:
            one.heard, one.sign = heard, now
        minutes = self.options.stall_minutes
        if minutes is None or one.stopped or one.sign is None:
            return
        if now - one.sign > 60 * minutes:
            one.stopped = f"No sign of life for {minutes:g} minutes (sweep.stall_minutes): it was killed."
            one.handle.kill()

    @contextmanager
    def _stop_requests(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM: the first asks the jobs to save and end, the second kills them."""

        def note(number: int, frame: Any) -> None:
            self.signals += 1

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _heard(folder: Path) -> float:
    """When a job last said something, seconds since the epoch; 0 if it never did."""
    last = 0.0
    for name in (jobs.PROGRESS, jobs.LOG):
        with suppress(OSError):
            last = max(last, (folder / name).stat().st_mtime)
    return last


class _Never(Handle):
    """Stands for a process that could not be started."""

    def poll(self) -> int | None:
        return 1

    def ask(self) -> None:
        """Nothing to ask."""

    def kill(self) -> None:
        """Nothing to kill."""
