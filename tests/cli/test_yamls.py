"""What yaml files say about themselves."""

from __future__ import annotations

from pathlib import Path

from mannlab import compose
from mannlab.cli import yamls

TEXT = """# @package _global_
# Many slots
defaults:
  - something
name: big
slots: 3   # rows
title: "a # b"
search:
  space: {}
  trials: 20  # jobs
seed: 1
"""


def test_first_lines_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(TEXT)
    assert yamls.first_line(path) == "Many slots"
    assert yamls.comments(path)["slots"] == "rows"
    assert yamls.comments(path)["search.trials"] == "jobs"
    assert "seed" in yamls.comments(path)
    assert yamls.values(path)["slots"] == 3
    path.write_text("a: 1\n# too late\n")
    assert yamls.first_line(path) == ""


def test_groups_and_choices_of_several_folders(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "big.yaml").write_text(TEXT)
    (tmp_path / "mine").mkdir()
    folders = [compose.conf_dir(), tmp_path]
    assert yamls.groups(folders)[:3] == ["task", "memory", "controller"]
    assert yamls.groups(folders)[-1] == "mine"
    assert "hydra" not in yamls.groups(folders)
    found = {choice.name: choice.description for choice in yamls.choices_of("memory", folders)}
    assert found["big"] == "Many slots"
    assert "dense" in found


def test_defaults_are_read() -> None:
    chosen = yamls.defaults()
    assert (chosen["memory"], chosen["task"]) == ("dense", "copy")
