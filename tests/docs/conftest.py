"""The hooks of the site, loaded as mkdocs loads them, and the site, built once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hook() -> Callable[[str], ModuleType]:
    """A hook by name."""

    def load(name: str) -> ModuleType:
        path = ROOT / "docs" / "hooks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"docs_hooks_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def page() -> Callable[[str], SimpleNamespace]:
    """A page of the site, by its place in docs/."""
    return lambda place: SimpleNamespace(file=SimpleNamespace(src_uri=place))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the built site; warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder
