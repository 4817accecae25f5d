"""The command ``report``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mannlab.__main__ import main
from mannlab.cli.report import read_arguments
from mannlab.errors import ConfigError
from tests.report import making


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs in ``outputs/`` of the present folder."""
    for seed in (1, 2):
        for name in ("lstm", "gru"):
            making.run(tmp_path / "outputs" / f"{name}-{seed}", float(seed), seed, {"controller__name": name})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_a_table_and_a_page(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 0
    said = capsys.readouterr().out
    assert "gru" in said
    assert "1.5 ± 6.4" in said
    assert said.rstrip().endswith("page        outputs/report.html")
    page = (outputs / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "python -m mannlab report" in page
    assert [path.name for path in outputs.iterdir() if path.is_file()] == ["report.html"]


def test_the_page_lies_in_the_first_folder(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "outputs/gru-1", "outputs/gru-2"]) == 0
    assert "lstm" not in capsys.readouterr().out
    assert (outputs / "gru-1" / "report.html").exists()
    # A page in a run's folder does not make it another run.
    assert main(["report", "to=none"]) == 0
    assert not (outputs / "report.html").exists()


def test_files_of_several_kinds(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "outputs", "by=controller", "to=a.csv,b.md", "to=new/c.json"]) == 0
    assert "new/c.json" in capsys.readouterr().out
    assert len(Path("a.csv").read_text().splitlines()) == 11
    assert Path("b.md").read_text().startswith("## copy")
    assert json.loads(Path("new/c.json").read_text())["tasks"][0]["by"] == ["controller"]
    assert not (outputs / "report.html").exists()


@pytest.mark.parametrize("kind", ["csv", "md", "json"])
def test_what_is_printed_for_pipes_is_that_alone(
    outputs: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(["report", "metric=cost_bits", f"to={kind}"]) == 0
    said = capsys.readouterr().out
    if kind == "json":
        assert json.loads(said)["tasks"]
    elif kind == "csv":
        assert [row["group"] for row in csv.DictReader(io.StringIO(said))] == ["gru", "lstm"]
    else:
        assert said.startswith("## copy\n")
    assert not (outputs / "report.html").exists()


def test_arguments() -> None:
    found = read_arguments(["a", "by=[memory,controller]", "metric=x", "by=seed", "b", "to=x.html"])
    assert found.folders == ["a", "b"]
    assert found.by == ["memory", "controller", "seed"]
    assert (found.metric, found.to) == (["x"], ["x.html"])
    assert read_arguments([]).folders == ["outputs"]


def test_folders_may_have_an_equals_sign(tmp_path: Path) -> None:
    (tmp_path / "seed=1").mkdir()
    assert read_arguments([str(tmp_path / "seed=1")]).folders == [str(tmp_path / "seed=1")]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("metrics=x", "Did you mean 'metric'"),
        ("to=x.pdf", "*.html"),
        ("by=", "a value is missing"),
        ("--by", "no flag"),
        ("nowhere", "no folder"),
    ],
)
def test_what_cannot_be_understood(refused: Callable[..., str], word: str, said: str) -> None:
    assert said in refused("report", word)


def test_a_place_that_cannot_be_written(outputs: Path, refused: Callable[..., str]) -> None:
    assert "cannot write" in refused(
        "report", str(outputs), f"to={outputs / 'gru-1' / 'config.yaml' / 'x.csv'}"
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: mannlab report")
    assert max(map(len, page.splitlines())) <= 110
    with pytest.raises(ConfigError):
        read_arguments(["to=report.doc"])
