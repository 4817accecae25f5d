"""Documents that are a way to go: a reader goes it from an empty folder, command by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.walkthrough import Block, Reader, blocks, environment

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("docs/plugins.md", "docs/tutorials/own_memory.md", "docs/tutorials/own_task.md")


def test_blocks_are_told_apart() -> None:
    text = 'Say:\n```bash\na\nb\n```\n```python title="x/y.py"\nz = 1\n```\n'
    assert list(blocks(text)) == [Block("bash", "", "a\nb\n"), Block("python", "x/y.py", "z = 1\n")]


def test_a_reader_notices_what_does_not_hold(tmp_path: Path) -> None:
    reader = Reader(tmp_path, {"VIRTUAL_ENV": str(tmp_path), "PATH": "/usr/bin:/bin"})
    reader.follow("```bash\nmkdir a\ncd a\necho 'four  words are said'\n```\n```text\nfour words ...\n```\n")
    assert reader.folder == tmp_path / "a"
    with pytest.raises(AssertionError, match="the document says"):
        reader.follow("```text\nfive words\n```\n")
    with pytest.raises(AssertionError, match="false"):
        reader.follow("```bash\nfalse\n```\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_way_can_be_gone(document: str, tmp_path: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    reader = Reader(tmp_path, environment(tmp_path / ".venv", ROOT))
    reader.follow(text)
    ends = [json.loads(path.read_text())["status"] for path in tmp_path.rglob("outputs/**/summary.json")]
    assert "solved" in ends
    assert "failed" not in ends
