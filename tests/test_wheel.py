"""The wheel holds everything, and runs from an empty folder without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [
    name for name in ("mannlab", "hydra_plugins", "conf", "tasks", "benchmarks") if (ROOT / name).is_dir()
]
FILES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the source so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, copy / file)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    done = subprocess.run(build, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed without its dependencies into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--target", target, wheel], check=True)
    return target


def test_the_wheel_holds_every_source_file(wheel: Path) -> None:
    expected = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in (
                ".py",
                ".yaml",
                ".typed",
                ".md",
                ".tmpl",
                ".css",
                ".html",
                ".js",
            ):
                name = path.relative_to(ROOT).as_posix()
                expected.add(name if folder in ("mannlab", "hydra_plugins") else f"mannlab/{name}")
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"mannlab/tasks/__init__.py", "mannlab/tasks/copy.py", "mannlab/conf/config.yaml"} <= held


def test_the_wheel_offers_the_program(wheel: Path) -> None:
    archive = ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "mannlab = mannlab.__main__:main" in archive.read(entry_points).decode()


def test_the_installed_program_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import mannlab, mannlab.tasks.copy as copy; print(mannlab.__file__); print(copy.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(line).is_relative_to(installed) for line in done.stdout.split())


def test_the_installed_program_composes_and_helps(program: Callable[..., str], installed: Path) -> None:
    composed = program("--cfg", "job", before=installed)
    assert "controller:" in composed
    assert "name: copy" in composed
    assert "task=" in program("--help", before=installed)


def test_the_installed_program_trains(program: Callable[..., str], installed: Path, tmp_path: Path) -> None:
    sizes = ["task.max_length=3", "task.lengths=[4]", "task.val_sequences=16", "task.test_sequences=16"]
    small = ["controller.hidden=8", "memory.slots=8", "trainer.max_steps=2", "trainer.accelerator=cpu"]
    program("task=copy", *sizes, *small, "hydra.run.dir=run", before=installed)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 2
    assert "test_length_4/bit_errors_per_sequence" in summary["metrics"]


def test_the_installed_program_writes_a_plugin(
    program: Callable[..., str], installed: Path, tmp_path: Path
) -> None:
    assert "wrote    ring/ring/ring.py" in program("new", "memory", "ring", before=installed)
    assert (tmp_path / "ring" / ".gitignore").is_file()
