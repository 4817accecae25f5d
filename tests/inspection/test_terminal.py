"""Steps in the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from mannlab.inspection import terminal
from mannlab.inspection.sample import Sample
from tests.inspection.conftest import COPY


def said(sample: Sample, width: int = 100, **how: object) -> str:
    stream = io.StringIO()
    terminal.show(sample, Console(file=stream, width=width, highlight=False, **how))  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_line_a_step(looked: Callable[..., Sample]) -> None:
    found = looked()
    lines = said(found).splitlines()
    numbers = [line.split()[0] for line in lines[2 : 2 + found.steps]]
    assert numbers == [str(step) for step in range(found.steps)]
    assert found.verdict in "\n".join(lines)
    assert sum("✓" in line or "✗" in line for line in lines) == found.scored.sum()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit(width: int, looked: Callable[..., Sample]) -> None:
    assert max(map(len, said(looked(), width).splitlines())) <= width


def test_the_middle_of_long_samples_is_left_out(looked: Callable[..., Sample]) -> None:
    found = looked(task=COPY | {"lengths": [60]}, split="length_60")
    lines = said(found).splitlines()
    assert found.steps == 121
    assert len(lines) < 42
    assert any(line.startswith("… 89 steps are left out") for line in lines)
    assert any(line.split()[:1] == ["120"] for line in lines)


def test_colours_are_for_terminals(looked: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked()
    assert "\x1b[" not in said(found)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;34m" in said(found, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    coloured = said(found, force_terminal=True)
    assert not any(f"\x1b[{code}m" in coloured for code in ("1;34", "1;33", "32", "1;31"))


def test_no_memory_is_said(looked: Callable[..., Sample]) -> None:
    assert "no memory" in said(looked({"name": "none"}))


def test_pictures_are_dots() -> None:
    image = np.zeros((20, 20), np.uint8)
    assert set(terminal.braille(image)) == {"\u2800", "\n"}
    image[:] = 255
    assert terminal.braille(image) == "\n".join(["\u28ff" * 6] * 3)
    corner = np.zeros((12, 12), np.uint8)
    corner[0, 0] = 255
    assert terminal.braille(corner)[0] == "\u2801"
