"""The help page."""

from __future__ import annotations

from pathlib import Path

import pytest

from mannlab.__main__ import main


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["help"], ["task=copy", "--help"], ["train", "-h"]]
)
def test_every_choice_is_on_the_page(
    arguments: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    page = capsys.readouterr().out
    for path in (root / "conf").glob("*/*.yaml"):
        assert f"{path.parent.name}=" in page
        assert f"    {path.stem}" in page
    for words in ("mannlab -m", "eval RUN", "list", "batch_size=", "--cfg job", "-sc install=bash"):
        assert words in page


def test_the_page_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    assert all(line == line.rstrip() for line in lines)


def test_plugins_are_on_the_page(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "plugin_example"))
    assert main(["plugins=[mannlab_ring]", "--help"]) == 0
    page = capsys.readouterr().out
    assert "Ring buffer" in page
    assert "[mannlab_ring]" in page


def test_defaults_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "    dense * " in capsys.readouterr().out
