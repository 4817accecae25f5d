"""What is seen of a sweep, while it runs and at its end."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from mannlab.sweep import live, table
from mannlab.sweep.engines import Adopted
from mannlab.sweep.record import Job, Sweep
from mannlab.sweep.schedule import Running


def job(number: int, status: str, value: float | None = None, mode: str = "min") -> Job:
    found = Job(number, Path(f"/sweep/job-{number}"), [f"seed={number}", "optimizer.lr=0.00012345"], status)
    found.attempts = status != "waiting"
    found.seconds = 10.0
    if value is not None:
        found.summary = {"steps": 1200, "objective": {"metric": "bit_errors", "mode": mode, "value": value}}
    return found


def running(number: int, **pulse: object) -> Running:
    one = job(number, "running")
    return Running(one, Adopted(one), pulse=dict(pulse))


def text(what: object, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_best_comes_first() -> None:
    found = [job(0, "failed"), job(1, "completed", 0.5), job(2, "pruned", 0.1), job(3, "solved", 0.2)]
    found += [job(4, "waiting"), job(5, "completed", float("nan"))]
    assert [one.number for one in table.ranked(found)] == [3, 1, 2, 4, 5, 0]
    greatest = [job(0, "completed", 1.0, "max"), job(1, "completed", 2.0, "max")]
    assert [one.number for one in table.ranked(greatest)] == [1, 0]


def test_the_table_holds_every_job() -> None:
    good, bad = job(1, "solved", 0.125), job(2, "failed")
    good.summary["sequences_until_solved"] = 640
    lines = text(table.table([bad, good])).splitlines()
    assert lines[0].split() == ["seed", "optimizer.lr", "status", "steps", "solved", "at", "bit", "errors"]
    assert lines[1].split() == ["1", "0.00012345", "solved", "1,200", "640", "0.125"]
    assert lines[2].split() == ["2", "0.00012345", "failed"]


def test_a_large_sweep_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(Path("/sweep"), [job(number, "completed", number) for number in range(200)])
    table.report(sweep)
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60
    assert "160 more in /sweep/sweep.csv" in said
    assert "python -m mannlab eval /sweep/job-0" in said
    assert "tensorboard --logdir /sweep" in said


def test_what_to_type_next() -> None:
    steps = dict(table.next_steps(Sweep(Path("/a b"), [job(0, "failed"), job(1, "completed", 1.0)])))
    assert steps["best"] == "python -m mannlab eval /sweep/job-1"
    assert steps["why failed"] == "less /sweep/job-0/job.log"
    assert steps["the rest"] == "python -m mannlab resume sweep='/a b'"
    good = dict(table.next_steps(Sweep(Path("/s"), [job(1, "completed", 1.0)], status="done")))
    assert set(good) == {"sweep", "compare", "watch"}


def test_counts_and_the_time_left() -> None:
    sweep = Sweep(Path("/s"), [job(0, "completed", 1.0), job(1, "pruned", 1.0), job(2, "failed")])
    sweep.jobs += [job(3, "running"), job(4, "waiting")]
    assert live.counts(sweep, 8) == "2/8 done (1 pruned), 1 running, 1 failed, 4 waiting"
    one = running(3, left=4.0)
    # Four that wait take 10 s each, as those that are done did; two run at once.
    assert live.time_left(sweep, [one], 8, 2) == pytest.approx(22.0)
    assert live.time_left(Sweep(Path("/s"), [job(4, "waiting")]), [], None, 2) is None


def test_overrides_in_few_characters() -> None:
    assert live.describe(["optimizer.lr=0.00123456", "+memory.slots=16"]) == "lr=0.001235 slots=16"
    assert len(live.describe([f"a.b{i}=value" for i in range(40)], 50)) == 50
    assert live.describe([]) == "(no overrides)"


def test_the_picture_shows_what_runs() -> None:
    known = running(3, step=500, total=2000, rate=123.4, value=0.25, left=75, phase="train")
    said = text(live.picture([known, running(4)]))
    assert "500/2,000" in said
    assert "0:01:15" in said
    assert "starts, 0:00:0" in said
    assert "0.25" in said


def screen(width: int = 100, height: int = 20, **more: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, **more)  # type: ignore[arg-type]


def test_the_picture_fits_the_screen() -> None:
    console = screen()
    many = [running(number, step=1, total=2, rate=1.0) for number in range(50)]
    sweep = Sweep(Path("/s"), [one.job for one in many])
    with live.Live(console, 50) as view:
        view.tick(sweep, many, 200)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "and 36 more that run" in said
    assert "0/200 done, 50 running, 150 waiting" in said


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    failed = job(0, "failed")
    failed.error = "too bad"
    coloured, plain = screen(color_system="standard"), screen(no_color=True)
    for console in (coloured, plain):
        live.Live(console).ended(failed)
    assert "\x1b[31m" in coloured.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[31m" not in plain.file.getvalue()  # type: ignore[attr-defined]


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=200)
    view = live.View(console, 2)
    sweep = Sweep(Path("/s"), [job(0, "completed", 0.5), job(1, "running")])
    view.started(sweep.jobs[1], adopted=False)
    view.ended(sweep.jobs[0])
    view.tick(sweep, [], None)
    view._said = time.monotonic() - live.EVERY
    view.tick(sweep, [], None)
    view.tick(sweep, [], None)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        "job 2 started: seed=1 optimizer.lr=0.00012345",
        "job 1 completed after 0:00:10, bit_errors 0.5: seed=0 optimizer.lr=0.00012345",
        "1/2 done, 1 running, 0 waiting, about 0:00:00 left",
    ]
