"""What the user sees of a running sweep: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mannlab.sweep import jobs
from mannlab.sweep.record import DONE, FAILED, INTERRUPTED, RUNNING, WAITING, Job, Sweep, settings

if TYPE_CHECKING:
    from mannlab.sweep.schedule import Running

COLOURS = {FAILED: "red", INTERRUPTED: "yellow", "solved": "green", jobs.PRUNED: "magenta"}
EVERY = 60.0  # seconds between plain lines that say how far the sweep is
MOST_ROWS = 24


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def describe(overrides: Sequence[str], width: int = 60) -> str:
    """Overrides in few characters: the last part of each key, numbers with four digits."""
    parts = []
    for key, value in settings(overrides).items():
        with suppress(ValueError):
            value = value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
        parts.append(f"{key.rpartition('.')[2]}={value}")
    text = " ".join(parts) or "(no overrides)"
    return text if len(text) <= width else text[: width - 1] + "…"


def counts(sweep: Sweep, total: int | None) -> str:
    """How many jobs there are of each kind, in words."""
    number = Counter("done" if job.status in DONE else job.status for job in sweep.jobs)
    known = len(sweep.jobs) if total is None else max(total, len(sweep.jobs))
    waiting = number[WAITING] + known - len(sweep.jobs)
    pruned = sum(job.status == jobs.PRUNED for job in sweep.jobs)
    words = [f"{number['done']}/{known} done" + (f" ({pruned} pruned)" if pruned else "")]
    words += [f"{number[RUNNING]} running"]
    words += [f"{number[status]} {status}" for status in (FAILED, INTERRUPTED) if number[status]]
    return ", ".join([*words, f"{waiting} waiting"])


def time_left(sweep: Sweep, running: Sequence[Running], total: int | None, room: int) -> float | None:
    """Seconds to the end of the sweep, by what jobs say and what others took; None before one has ended."""
    took = [job.seconds for job in sweep.jobs if job.status in DONE]
    if not took:
        return None
    each = sum(took) / len(took)
    known = len(sweep.jobs) if total is None else max(total, len(sweep.jobs))
    waiting = known - len(sweep.jobs) + sum(job.status == WAITING for job in sweep.jobs)
    now = time.monotonic()
    lefts = []
    for one in running:
        said = one.pulse.get("left")
        lefts.append(max(0.0, each - one.before - (now - one.began)) if said is None else float(said))
    at_once = max(1, min(room, waiting + len(running)))
    return max([(waiting * each + sum(lefts)) / at_once, *lefts])


class View:
    """What happens, as plain lines; the base of the live picture.

    Args:
        console: of rich.
        room: how many jobs run at once.
    """

    def __init__(self, console: Any, room: int = 1) -> None:
        self.console, self.room = console, room
        self.total: int | None = None
        self._said = time.monotonic()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to put back."""

    def say(self, text: str, style: str = "") -> None:
        """One line that stays."""
        from rich.text import Text

        self.console.print(Text(text, style=style))

    def started(self, job: Job, adopted: bool) -> None:
        """A job began."""
        again = " again" if job.attempts > 1 else ""
        word = "still running" if adopted else f"started{again}"
        self.say(f"job {job.number + 1} {word}{_at(job)}: {' '.join(job.overrides)}")

    def ended(self, job: Job) -> None:
        """A job came to its end."""
        text = f"job {job.number + 1} {job.status} after {clock(job.seconds)}"
        if job.value is not None:
            text += f", {job.objective.get('metric')} {job.value:.4g}"
        self.say(f"{text}: {' '.join(job.overrides)}", COLOURS.get(job.status, ""))
        if job.status == FAILED:
            first = str(job.error).splitlines() or [""]
            self.say(f"  {first[0][:300]}")
            self.say(f"  see {job.folder / jobs.LOG}")

    def stopping(self, why: str, running: int) -> None:
        """The sweep is being stopped."""
        because = "" if why == INTERRUPTED else f" ({why})"
        many = f"{running} running job" + ("s" if running != 1 else "")
        self.say(f"stopping{because}: {many} to save and end; Ctrl-C once more kills them", "yellow")

    def tick(self, sweep: Sweep, running: Sequence[Running], total: int | None) -> None:
        """Time has passed."""
        if time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self.say(headline(sweep, running, total, self.room))


def headline(sweep: Sweep, running: Sequence[Running], total: int | None, room: int) -> str:
    """Counts, and the time left."""
    left = time_left(sweep, running, total, room)
    return counts(sweep, total) + (f", about {clock(left)} left" if left is not None else "")


def _at(job: Job) -> str:
    return f" on {job.where}" if job.where else ""


class Live(View):
    """A picture that is redrawn: how many jobs there are of each kind, and those that run."""

    def __init__(self, console: Any, room: int = 1) -> None:
        super().__init__(console, room)
        from rich.live import Live as Picture

        self._picture = Picture(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> View:
        self._picture.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._picture.stop()

    def started(self, job: Job, adopted: bool) -> None:
        """The picture shows it."""

    def tick(self, sweep: Sweep, running: Sequence[Running], total: int | None) -> None:
        """Draw anew."""
        from rich.console import Group
        from rich.text import Text

        rows = max(3, min(MOST_ROWS, self.console.height - 6))
        parts: list[Any] = [Text(headline(sweep, running, total, self.room), style="bold")]
        parts.append(picture(running[:rows], self.console.width))
        if len(running) > rows:
            parts.append(Text(f"… and {len(running) - rows} more that run"))
        self._picture.update(Group(*parts), refresh=True)


def picture(running: Sequence[Running], width: int = 100) -> Any:
    """A table of the jobs that run: step, rate, main metric, time left."""
    from rich.table import Table

    found = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    found.add_column("job", justify="right")
    found.add_column("given", no_wrap=True)
    for name in ("step", "seq/s", "value", "left"):
        found.add_column(name, justify="right", no_wrap=True)
    for one in running:
        pulse = one.pulse
        if pulse:
            total = f"/{pulse['total']:,}" if pulse.get("total") else ""
            step = f"{pulse.get('step', 0):,}{total}" + (" test" if pulse.get("phase") == "test" else "")
            left = "" if pulse.get("left") is None else clock(pulse["left"])
            value = "" if pulse.get("value") is None else f"{pulse['value']:.4g}"
            cells = (step, f"{pulse.get('rate', 0):,.0f}", value, left)
        else:
            cells = (f"starts, {clock(time.monotonic() - one.began)}", "", "", "")
        given = describe(one.job.overrides, max(20, width - 60)) + _at(one.job)
        found.add_row(str(one.job.number + 1), given, *cells)
    return found


def view(room: int) -> View:
    """What suits the terminal; rich heeds NO_COLOR."""
    from rich.console import Console

    if Console().is_terminal:
        return Live(Console(highlight=False), room)
    return View(Console(highlight=False, soft_wrap=True), room)
