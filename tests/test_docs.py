"""What the documents say can be typed, can be typed; what they link to is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.test_walkthroughs import DOCUMENTS as WALKTHROUGHS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def fenced(text: str) -> Iterator[str]:
    """The lines of the ``bash`` blocks of a document, continuations joined."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every call of the program in a document."""
    for line in fenced(text):
        words = shlex.split(line, comments=True)
        if words[:2] == ["make", "run"]:
            yield [part for word in words if word.startswith("ARGS=") for part in shlex.split(word[5:])]
        elif words[:1] == ["mannlab"]:
            yield words[1:]
        elif words[1:3] == ["-m", "mannlab"]:
            yield words[3:]


def one_job(arguments: list[str]) -> list[str]:
    """A sweep's first job: ``-m seed=1,2`` is ``seed=1``."""
    if not {"-m", "--multirun"} & set(arguments):
        return arguments
    kept = [word for word in arguments if word not in ("-m", "--multirun")]
    return [word if "[" in word else word.partition(",")[0] for word in kept]


COMMANDS = {
    " ".join(arguments): arguments
    for path in DOCUMENTS
    if path.relative_to(ROOT).as_posix() not in WALKTHROUGHS  # all of them is run, in order
    for arguments in commands(path.read_text(encoding="utf-8"))
}


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 8
    assert ["task=copy", "memory=dense"] in COMMANDS.values()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str, program: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(_plugin())
    arguments = one_job(COMMANDS[command])
    if arguments[:1] == ["train"]:
        arguments = arguments[1:]
    if {"--cfg", "--help", "-h"} & set(arguments):
        program(*arguments, cwd=tmp_path)
    elif arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        assert arguments[0] in program(arguments[0], "--help", cwd=tmp_path)
    else:
        composed = program(*arguments, "--cfg", "job", cwd=tmp_path)
        assert "controller:" in composed


def _plugin() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    *parts, _ = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return "\n\n".join(parts)


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / name).read_text(encoding="utf-8")
    typed = {shlex.split(line, comments=True)[1] for line in fenced(text) if line.startswith("make ")}
    quoted = set(re.findall(r"`make (\w+)`", text))
    assert typed | quoted <= targets


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.M | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_every_shipped_component_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for group in ("controller", "memory", "task"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{path.stem}`" in text, f"README does not name {group} '{path.stem}'"


def test_the_changelog_knows_the_version() -> None:
    version = re.search(
        r'__version__ = "(.+)"', (ROOT / "mannlab" / "__init__.py").read_text(encoding="utf-8")
    )
    assert version
    assert version[1] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
