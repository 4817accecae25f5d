"""Log lines in the terminal and in the file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mannlab.cli import logs


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.addHandler(logging.FileHandler(tmp_path / "train.log"))
    root.setLevel(logging.INFO)
    logs.console()
    yield logging.getLogger("mannlab.test")
    logs.reset(handlers, level)
    assert root.handlers == handlers


def test_lines_are_bare_and_warnings_are_marked(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.info("step %d", 3)
    log.warning("careful")
    log.debug("unseen")
    assert capsys.readouterr().out == "step 3\nwarning: careful\n"


def test_asking_twice_does_not_write_twice(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.console()
    log.info("once")
    assert capsys.readouterr().out == "once\n"


def test_errors_go_to_the_file_alone(
    log: logging.Logger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logs.to_file("the whole trace")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "train.log").read_text() == "the whole trace\n"


def test_where_output_is_for_answers_the_log_goes_elsewhere(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.console("stderr")
    log.warning("look out")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: look out\n"


def test_lines_for_the_file_alone_do_not_show(
    log: logging.Logger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log.info("test/loss 1", extra={"file_only": True})
    assert capsys.readouterr().out == ""
    assert (tmp_path / "train.log").read_text() == "test/loss 1\n"


def test_warnings_of_libraries_are_kept(log: logging.Logger, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown: list[str] = []
        warnings.showwarning = lambda message, *rest, **named: shown.append(str(message))
        with logs.warnings_kept():
            warnings.warn("old thing", UserWarning, stacklevel=1)
        warnings.warn("later", UserWarning, stacklevel=1)
    assert shown == ["old thing", "later"]
    assert (tmp_path / "train.log").read_text() == "UserWarning: old thing\n"


def test_files_have_no_colours() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "\x1b[1;31mred\x1b[0m and plain", None, None)
    assert logs.Plain("%(message)s").format(record) == "red and plain"
