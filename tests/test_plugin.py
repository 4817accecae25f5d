"""A memory and a task from somebody else's package, with no edit in mannlab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parent / "plugin_example"
TINY = [
    "task=reverse",
    "memory=ring",
    "memory.slots=8",
    "task.sequences=16",
    "trainer.max_steps=20",
    "trainer.accelerator=cpu",
    "hydra.run.dir=run",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, as its author would have it."""
    folder = tmp_path_factory.mktemp("plugin") / "mannlab-ring"
    return Path(shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".*")))


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", target, source], check=True)
    return target


def trained(run: Path) -> dict[str, object]:
    """The summary of a finished run of the example's task and memory."""
    summary: dict[str, object] = json.loads((run / "summary.json").read_text())
    assert (summary["task"], summary["memory"], summary["steps"]) == ("reverse", "ring", 20)
    assert "test/bit_errors_per_sequence" in summary["metrics"]  # type: ignore[operator]
    return summary


def test_an_installed_plugin_is_listed(program: Callable[..., str], installed: Path) -> None:
    listing = program("list", before=installed)
    assert "ring" in listing
    assert "Ring buffer: each step overwrites the oldest slot" in listing
    assert "reverse" in listing


def test_an_installed_plugin_is_offered_by_help(program: Callable[..., str], installed: Path) -> None:
    assert "ring" in program("--help", before=installed)


def test_an_installed_plugin_trains_and_can_be_evaluated(
    program: Callable[..., str], installed: Path, tmp_path: Path
) -> None:
    program(*TINY, before=installed)
    assert trained(tmp_path / "run")["status"] in ("completed", "solved")
    assert "bit errors per sequence" in program("eval", "run", before=installed, cwd=tmp_path)


def test_a_named_module_trains_without_being_installed(program: Callable[..., str], source: Path) -> None:
    program("plugins=[mannlab_ring]", *TINY, cwd=source)
    trained(source / "run")


def test_a_wrong_option_of_a_plugin_is_explained(program: Callable[..., str], installed: Path) -> None:
    message = program("task=reverse", "memory=ring", "memory.slots=many", before=installed, code=1)
    assert "memory.slots" in message
    assert "Traceback" not in message


def test_the_examples_own_tests_pass(source: Path, root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of installed packages, of which one cannot be imported and one takes a name of ours."""
    site = tmp_path / "site"
    modules = {"fails": "import no_such_library", "clashes": CLASH}
    for name, text in modules.items():
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mannlab.plugins]\n{name} = {name}_module\n")
        (site / f"{name}_module.py").write_text(text)
    return site


CLASH = """
from mannlab.memory.none import NoMemory
from mannlab.registry import register

@register("memory", "before")
class Before(NoMemory): ...

@register("memory", "dense")
class Mine(NoMemory): ...
"""


def test_broken_plugins_are_named_and_break_nothing(program: Callable[..., str], broken: Path) -> None:
    said = program("--cfg", "job", "memory=dense", before=broken)
    assert "controller:" in said
    assert "plugin 'fails' (fails_module) was left out: ModuleNotFoundError: No module named" in said
    assert "memory 'dense' is registered twice: by mannlab.memory.dense and by clashes_module" in said
    said = program("--cfg", "job", "memory=before", before=broken, code=1)
    assert "There is no memory 'before'" in said
    assert "Plugin 'clashes' could not be loaded: memory 'dense' is registered twice" in said
