"""What the documents say can be typed, can be typed; what they link to is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mannlab.__main__ import main
from tests.test_grid import SMALL
from tests.test_walkthroughs import DOCUMENTS as WALKTHROUGHS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]

FENCED = r"(?:^<!-- (not run: .+?|refused|run) -->\n)?^```(bash|python)\n(.*?)^```"


@dataclass(frozen=True)
class Block:
    """A fenced block of a document, and what an HTML comment right above it says."""

    language: str
    said: str
    lines: list[str]


def blocks(text: str) -> Iterator[Block]:
    """The fenced ``bash`` and ``python`` blocks of a document; in bash, continuations are joined."""
    found = re.findall(FENCED, text, re.MULTILINE | re.DOTALL)
    for said, language, block in found:
        lines = block.replace("\\\n", " ") if language == "bash" else block
        yield Block(language, said, [line for line in lines.splitlines() if line.strip()])


def fenced(text: str) -> Iterator[str]:
    """The lines of the ``bash`` blocks of a document."""
    for block in blocks(text):
        if block.language == "bash":
            yield from block.lines


def command_of(line: str) -> str:
    """A line of a shell without the comment at its end."""
    return line.partition("  #")[0].strip()


def arguments_of(line: str) -> list[str] | None:
    """What a line of a shell hands to the program; None: it does not call it."""
    words = shlex.split(line, comments=True)
    if words[:2] == ["make", "run"]:
        return [part for word in words if word.startswith("ARGS=") for part in shlex.split(word[5:])]
    if words[:1] == ["mannlab"]:
        return words[1:]
    return words[3:] if words[1:3] == ["-m", "mannlab"] else None


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every call of the program in a document that it does not show as refused."""
    lines = [line for block in blocks(text) if block.language == "bash" for line in block.lines]
    refused = {line for block in blocks(text) if block.said == "refused" for line in block.lines}
    quoted = re.findall(r"(?:`|<code>)((?:python -m )?mannlab [^`<]+)(?:`|</code>)", text)
    shown = [line for line in lines if line not in refused]
    for line in [*shown, *(line.replace("\n", " ") for line in quoted)]:
        found = arguments_of(line)
        if found is not None:
            yield [word for word in found if word != "..."]


def one_job(arguments: list[str]) -> list[str]:
    """A sweep's first job: ``-m seed=1,2`` is ``seed=1``; what a search is to choose is left out."""
    if not {"-m", "--multirun"} & set(arguments):
        return arguments
    kept = [word for word in arguments if word not in ("-m", "--multirun") and "(" not in word]
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


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    visit(tmp_path, monkeypatch)
    arguments = one_job(COMMANDS[command])
    if "--config-dir" in arguments:
        pytest.skip("its folder is made by the page, which runs as a whole below")
    if arguments[:1] == ["train"]:
        arguments = arguments[1:]
    if {"--cfg", "--help", "-h", "--version", "-sc"} & set(arguments):
        assert main(arguments) == 0
    elif arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        assert main([arguments[0], "--help"]) == 0
        assert arguments[0] in capfd.readouterr().out
    else:
        assert main([*arguments, "--cfg", "job"]) == 0
        assert "controller:" in capfd.readouterr().out


def visit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a reader's folder, with CONTRIBUTING's plugin in it."""
    (folder / "my_plugin.py").write_text(_plugin())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))


# ---------------------------------------------------------------------- pages run from top to bottom

# Lines of the documents that carry no comment of their own, and why they are not run.
SEARCH = 'python -m mannlab -m sweep=optuna "optimizer.lr=tag(log,interval(1e-4,1e-2))" memory=dense,none'
NOT_RUN = {
    SEARCH: "twenty jobs; tests/sweep searches with small ones",
    "python -m venv .venv && .venv/bin/pip install -e '.[text]'": "installs; test_wheel.py does so",
    "python -m mannlab trainer=gpu trainer.precision=bf16-mixed": "wants a GPU; it is composed above",
    "python -m mannlab bench dense": "measures for minutes; test_bench.py runs small ones",
}
MAKE = ("test", "lint", "format", "bench", "docs")  # test_make_targets_exist looks at them
HARMLESS = ("cat", "cp", "echo", "for", "head", "ls", "mkdir", "printf")
SHORT = (
    "trainer.val_check_interval=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.accelerator=cpu",
    "callbacks.pictures=null",
    "eval_batch_size=4",
    "threads=1",
)
PAGES = [
    name
    for name, path in zip(NAMES, DOCUMENTS, strict=True)
    if name not in WALKTHROUGHS and any(blocks(path.read_text(encoding="utf-8")))
]


def key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def tiny(arguments: list[str]) -> list[str]:
    """A training command in few steps and small sizes, where it does not say sizes itself."""
    sweeping = ["-m"] if {"-m", "--multirun"} & set(arguments) else []
    steps = 4 if any(word.startswith("ckpt_path=") for word in arguments) else 2
    kept = [word for word in one_job(arguments) if key_of(word) != "trainer.max_steps"]
    given = {key_of(word): word.partition("=")[2] for word in kept}
    more = [word for word in (*SHORT, f"trainer.max_steps={steps}") if key_of(word) not in given]
    chosen = {"controller": "lstm", "memory": "dense", "task": "copy"} if "experiment" not in given else {}
    for kind, name in chosen.items():
        for key, value in SMALL.get(given.get(kind, name), {}).items():
            own_text = kind == "task" and "task.train" in given
            hosted = key == "layers" and "controller.memory_blocks" in given
            if f"{kind}.{key}" not in given and not own_text and not hosted:
                more.append(f"{kind}.{key}={value}".replace("'", "").replace(" ", ""))
    return [*sweeping, *kept, *more]


def newest(arguments: list[str]) -> str:
    """What ``outputs/...`` and, where pages have many tasks, ``last`` stand for: the newest run that fits."""
    wanted = {key_of(word)[5:] for word in arguments if word.startswith("task.")}
    for path in sorted(Path("outputs").glob("**/summary.json"), key=lambda path: -path.stat().st_mtime):
        config = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
        fits = arguments[0] != "predict" or config["task"]["name"] == "translation"
        if fits and wanted <= set(config["task"]):
            return path.parent.as_posix()
    task = "translation" if arguments[0] == "predict" or "beam" in wanted else "copy"
    assert main(tiny([f"task={task}"])) == 0
    return newest(arguments)


def runnable(arguments: list[str]) -> list[str]:
    """A command as it is run here: small, and with folders in the place of dots."""
    first = arguments[0] if arguments else ""
    if {"--cfg", "--help", "-h", "--version"} & set(arguments):
        return arguments
    if first and "=" not in first and not first.startswith("-") and first != "train":
        if any("outputs/sweeps/..." in word for word in arguments):
            sweep = max(Path("outputs/sweeps").glob("*/sweep.json"), key=lambda path: path.stat().st_mtime)
            return [word.replace("outputs/sweeps/...", sweep.parent.as_posix()) for word in arguments]
        if any("..." in word or word == "last" for word in arguments):
            run = newest(arguments)
            arguments = [run if word == "last" else word.replace("outputs/...", run) for word in arguments]
            if first in ("eval", "predict"):
                arguments += ["threads=1", "trainer.accelerator=cpu", "trainer.limit_test_batches=1"]
        return arguments
    return tiny(arguments[1:] if first == "train" else arguments)


def run_line(line: str, refused: bool) -> None:
    arguments = arguments_of(line)
    if arguments is not None:
        code = main(runnable(arguments))
        assert code == (1 if refused else 0), line
        return
    words = shlex.split(line, comments=True)
    if words[:1] == ["cd"]:
        os.chdir(words[1])
    elif words and not (words[0] == "make" and words[1] in MAKE):
        assert words[0] in HARMLESS, (
            f"'{line}' is no command that this test runs: put '<!-- not run: why -->' above its block."
        )
        subprocess.run(["bash", "-euc", line], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_typed_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(tmp_path, monkeypatch)
    left_out = set(NOT_RUN)
    if name != "README.md":  # what both say is typed once
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        left_out |= {command_of(line) for line in fenced(readme) if arguments_of(line) is not None}
    for block in blocks((ROOT / name).read_text(encoding="utf-8")):
        if block.language == "python" and block.said == "run":
            code = "\n".join(block.lines)
            exec(code.replace("outputs/...", newest(["load"]) if "..." in code else ""), {})
        elif block.language == "bash" and not block.said.startswith("not run"):
            for line in block.lines:
                if command_of(line) not in left_out:
                    run_line(line, block.said == "refused")


def test_what_is_not_run_is_there() -> None:
    lines = {command_of(line) for path in DOCUMENTS for line in fenced(path.read_text(encoding="utf-8"))}
    assert set(NOT_RUN) <= lines


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
