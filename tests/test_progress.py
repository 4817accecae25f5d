"""How far something long has come: in terminals, and in logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mannlab import progress as module
from mannlab.progress import counting, disown, own, progress, said, waiting


class Time:
    """A clock that tests move."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(module, "time", found)
    return found


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error, as the test has it now, is a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


def test_what_is_quick_is_silent_away_from_a_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert list(progress([1, 2, 3], "Counting")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []


def test_what_is_slow_says_so_every_ten_seconds(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in progress(range(40), "Counting", "things"):
        time.now += 1
    assert caplog.messages == [
        "Counting: 2 of 40 things, 1/s, 0:00:38 left",
        "Counting: 12 of 40 things, 1/s, 0:00:28 left",
        "Counting: 22 of 40 things, 1/s, 0:00:18 left",
        "Counting: 32 of 40 things, 1/s, 0:00:08 left",
    ]


def test_waiting_says_what_for(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with waiting("Learning"):
        time.now += 61
    with waiting("Quickly"):
        time.now += 1
    assert caplog.messages == ["Learning ...", "Learning: done in 0:01:01", "Quickly ..."]


def test_a_line_on_a_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    caplog.set_level(logging.INFO)
    assert list(progress([1, 2, 3], "Counting", "things")) == [1, 2, 3]
    out, error = capsys.readouterr()
    assert out == ""
    assert "Counting" in error
    assert "3 of 3 things" in error
    assert caplog.messages == []


def test_no_colours_where_none_are_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    list(progress([1, 2, 3], "Counting"))
    error = capsys.readouterr().err
    assert "Counting" in error
    assert "\x1b[3" not in error
    assert "\x1b[9" not in error


def test_a_terminal_has_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    owner = object()
    own(owner)
    list(progress([1, 2], "Hidden"))
    disown(owner)
    assert "Hidden" not in capsys.readouterr().err
    with counting("Outer", 2) as advance:
        list(progress([1, 2], "Inner"))
        advance(2)
    error = capsys.readouterr().err
    assert "Outer" in error
    assert "Inner" not in error
    list(progress([1, 2], "Later"))
    assert "Later" in capsys.readouterr().err


def test_without_a_known_end() -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)

    assert list(progress(numbers(), "Counting")) == [0, 1, 2]
    assert said(30, None, "", 10) == "30, 3/s"
    assert said(1_500, 3_000, "texts", 10) == "1,500 of 3,000 texts, 150/s, 0:00:10 left"
