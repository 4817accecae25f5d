"""Errors on one screen."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import pytest

from mannlab.__main__ import main
from mannlab.cli import errors
from mannlab.errors import ConfigError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_our_own_errors_are_told_as_they_are() -> None:
    assert errors.explain(ConfigError("seed: no.", "A number.")) == ("seed: no.", "A number.")


def test_an_error_of_ours_is_found_behind_others() -> None:
    error = RuntimeError("while doing something")
    error.__cause__ = ConfigError("seed: no.", "A number.")
    assert errors.explain(error) == ("seed: no.", "A number.")


def test_unforeseen_errors_say_where() -> None:
    try:
        {}["nothing"]
    except KeyError as error:
        what, hint = errors.explain(error)
    assert "KeyError: 'nothing'" in what
    assert Path(__file__).name in what
    assert "HYDRA_FULL_ERROR=1" in hint


def test_long_messages_are_cut() -> None:
    what, _ = errors.explain(ValueError("\n".join(map(str, range(100)))))
    assert len(what.splitlines()) < 15
    assert "88 lines more" in what


def test_a_full_gpu_has_its_own_hint() -> None:
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    assert "batch_size" in errors.explain(kind("CUDA out of memory"))[1]


@pytest.mark.parametrize(
    ("number", "words"), [(28, "disk is full"), (13, "Cannot write"), (30, "Cannot write")]
)
def test_files_that_cannot_be_written(number: int, words: str) -> None:
    what, hint = errors.explain(OSError(number, "no", "somewhere"))
    assert words in what
    assert "somewhere" in what
    assert "outputs=" in hint


def test_a_missing_file_is_not_a_full_disk() -> None:
    assert errors.explain(FileNotFoundError(2, "no", "somewhere"))[0].startswith("FileNotFoundError")


def test_plain_lines_in_a_pipe_and_a_panel_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    error = ConfigError("memory.slots: [3] is not allowed.", "allowed: int")
    pipe, terminal = io.StringIO(), Terminal()
    errors.show(error, pipe)
    errors.show(error, terminal)
    assert pipe.getvalue() == "error: memory.slots: [3] is not allowed.\n  allowed: int\n"
    assert "╭" in terminal.getvalue()
    assert "[3] is not allowed" in terminal.getvalue()


def test_long_lines_are_not_broken_in_a_pipe() -> None:
    pipe = io.StringIO()
    errors.show(ConfigError("x" * 50 + " " + "y" * 200), pipe)
    assert len(pipe.getvalue().splitlines()) == 1


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_the_users_environment_comes_back(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if before is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", before)
    with errors.hydra_raises():
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
        assert errors.trace_wanted() == (before == "1")
        with errors.users_environment():
            assert os.environ.get("HYDRA_FULL_ERROR") == before
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
    assert os.environ.get("HYDRA_FULL_ERROR") == before


def test_warnings_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logging.Logger.hasHandlers", lambda self: False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with errors.tidy_warnings():
            warnings.warn("first\n   second", stacklevel=1)
    assert capsys.readouterr().err == "mannlab: warning: first second\n"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("lr=3", "optimizer.lr"),
        ("task.lr=3", "optimizer.lr"),
        ("hidden=7", "controller.hidden"),
        ("max_steps=7", "trainer.max_steps"),
        ("controller.hiden=7", "'hidden'"),
    ],
)
def test_a_key_that_lies_elsewhere_is_shown_there(
    given: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([given]) != 0
    assert f"Did you mean {wanted}?" in capsys.readouterr().err
