"""CONTRIBUTING's five minutes are real: its code is run as it stands."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mannlab import registry

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of CONTRIBUTING in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, with ``my_plugin.py`` in it."""
    *parts, _ = blocks("python")
    (tmp_path / "my_plugin.py").write_text("\n\n".join(parts))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_the_contract_checks_pass(folder: Path) -> None:
    registry.load_plugins(["my_plugin"])
    exec(compile(blocks("python")[-1], "CONTRIBUTING.md", "exec"), {})


@pytest.mark.slow
def test_the_command_trains_it(folder: Path, program: Callable[..., str]) -> None:
    (line,) = (line for block in blocks("bash") for line in block.splitlines() if "plugins=" in line)
    arguments = shlex.split(line)
    assert arguments[:3] == ["python", "-m", "mannlab"]
    program(*arguments[3:], "trainer.max_steps=3", "trainer.accelerator=cpu", "hydra.run.dir=run", cwd=folder)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert (summary["task"], summary["memory"], summary["steps"]) == ("echo", "trail", 3)
    assert "test/bit_errors_per_sequence" in summary["metrics"]


def test_the_options_it_names_exist(folder: Path) -> None:
    registry.load_plugins(["my_plugin"])
    named = re.findall(r"`(memory|task)\.(\w+)=", TEXT)
    assert named
    for kind, option in named:
        cls = registry.get(kind, {"memory": "trail", "task": "echo"}[kind])
        assert option in registry.options(cls)
