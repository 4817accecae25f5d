"""Answers of a saved run to texts."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import mannlab.training.predict
from mannlab.__main__ import main

SAVED: dict[str, Any] = {
    "controller": {"name": "lstm", "hidden": 8},
    "memory": {"name": "none"},
    "task": {"name": "translation", "beam": 1},
    "seed": 5,
    "batch_size": 4,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with checkpoints that nobody reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("best", "last"):
        (folder / "checkpoints" / f"{name}.ckpt").write_text("")
    (folder / "config.yaml").write_text(yaml.safe_dump(SAVED))
    return folder


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A predictor that answers in capitals, and what it was made of."""
    found: dict[str, Any] = {"asked": []}

    class Fake:
        def __init__(self, config: dict[str, Any], checkpoint: Path) -> None:
            found.update(config=config, checkpoint=checkpoint)

        def __call__(self, texts: Sequence[str]) -> list[str]:
            found["asked"].append(len(texts))
            return [text.upper() for text in texts]

    monkeypatch.setattr(mannlab.training.predict, "Predictor", Fake)
    return found


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call the program with something wrong in it; what it says comes back."""

    def call(*arguments: str) -> str:
        assert main(["predict", *arguments]) == 1
        said = capfd.readouterr().err
        assert said.startswith("error: "), said
        assert "Traceback" not in said
        return said

    return call


def test_a_text_is_answered(run: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", f"run={run}", "text=eins = zwei", "task.beam=3", "ckpt=last"]) == 0
    assert capsys.readouterr().out == "EINS = ZWEI\n"
    assert given["config"]["task"]["beam"] == 3
    assert given["checkpoint"] == run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("given_text", "answered"),
    [('"one two"', "ONE TWO"), ("'one'", "ONE"), ("\"one'", "\"ONE'"), ('"a" and "b"', '"A" AND "B"')],
)
def test_quotes_around_a_text_are_none_of_it(
    run: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str], given_text: str, answered: str
) -> None:
    assert main(["predict", str(run), f"text={given_text}"]) == 0
    assert capsys.readouterr().out == f"{answered}\n"


def test_a_file_is_answered_line_by_line(
    run: Path, given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"zeile {i}" if i != 3 else "" for i in range(70)]
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert main(["predict", str(run), "file=in.txt", "out=out.txt"]) == 0
    assert (tmp_path / "out.txt").read_text() == "".join(f"{line.upper()}\n" for line in lines)
    assert given["asked"] == [32, 32, 6]
    assert "out.txt" in capsys.readouterr().out


def test_standard_input(
    run: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    assert main(["predict", str(run), "file=-"]) == 0
    assert capsys.readouterr().out == "A\nB\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["Which text?", "usage"]),
        (["txt=one"], ["there is no key 'txt'", "Did you mean 'text'?"]),
        (["--text=one"], ["there is no key '--text'", "Did you mean 'text'?"]),
        (["files=in.txt"], ["there is no key 'files'", "Did you mean 'file'?"]),
        (["text=a", "output=b"], ["there is no key 'output'", "Did you mean 'out'?"]),
        (["text=a", "checkpt=last"], ["there is no key 'checkpt'", "Did you mean 'ckpt'?"]),
        (["text=a", "file=b"], ["not both"]),
        (["text= "], ["text: it is empty"]),
        (["text=''"], ["text: it is empty"]),
        (["file=no.txt"], ["file: there is no file no.txt"]),
        (["file=latin.txt"], ["latin.txt:2: not UTF-8"]),
        (["file=wide.txt"], ["wide.txt is not UTF-8 (it looks like UTF-16)", "iconv"]),
        (["file=empty.txt"], ["is empty"]),
        (["text=a", "out=no/where.txt"], ["out: there is no folder no"]),
        (["text=a", "out=run"], ["out: run is a folder"]),
        (["text=a", "task.beem=3"], ["task.beem", "Did you mean 'beam'?"]),
        (["text=a", "ckpt=first"], ["'first'", "best, last"]),
        (["text=a", "--fast"], ["'--fast' cannot be read"]),
    ],
)
def test_wrong_arguments_are_explained(
    run: Path, tmp_path: Path, refused: Callable[..., str], arguments: list[str], expected: list[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"ja\nstra\xdfe\n")
    (tmp_path / "wide.txt").write_text("ja\nnein\n", encoding="utf-16")
    (tmp_path / "empty.txt").write_text("\n \n")
    said = refused(str(run), *arguments)
    for words in expected:
        assert words in said


def test_runs_that_are_none_are_explained(refused: Callable[..., str], run: Path) -> None:
    assert "Which run?" in refused("text=a")
    assert "nothing at nowhere" in refused("nowhere", "text=a")


def test_a_task_without_texts_is_explained(run: Path, refused: Callable[..., str]) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump({**SAVED, "task": {"name": "copy"}}))
    said = refused(str(run), "text=a")
    assert "task=copy has no texts to answer" in said
    assert "translation" in said


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    assert "mannlab predict RUN" in capsys.readouterr().out


def test_completion(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def complete(line: str) -> set[str]:
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0
        return set(capsys.readouterr().out.split())

    (run.parent / "in.txt").write_text("a")
    assert complete("mannlab pred") == {"predict"}
    assert {"text=", "file=", "out=", "run=", "ckpt=best"} <= complete("mannlab predict ")
    assert complete("mannlab predict file=in") == {"file=in.txt"}
