"""Settings for every test: offline, one thread, no display, a cache of its own, a seed, a clean registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch, numpy or matplotlib are imported, here and in the processes that tests start.
os.environ["MANNLAB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

from mannlab import registry
from tests import processes

torch.set_num_threads(1)
# A shell's background job starts deaf to Ctrl-C, which tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of this test session; a user's own is never touched unless they name it."""
    own = tmp_path_factory.getbasetemp()
    # Workers of one session have folders side by side, and need not all draw the same glyphs.
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    shared.mkdir(exist_ok=True)
    return Path(os.environ.setdefault("MANNLAB_CACHE", str(shared)))


@pytest.fixture(autouse=True)
def numbers() -> None:
    """The same random numbers in each test, whichever ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def components() -> Iterator[None]:
    """Forget what a test registers, and the modules that did it; built-in components stay."""
    known, broken = dict(registry._components), dict(registry._broken_plugins)
    modules = dict(registry._plugin_modules)
    yield
    for key, cls in list(registry._components.items()):
        if key not in known and not cls.__module__.startswith("mannlab."):
            del registry._components[key]
            sys.modules.pop(cls.__module__, None)
    for module in set(registry._plugin_modules.values()) - set(modules.values()):
        package = module.partition(".")[0]
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
    registry._plugin_modules.clear()
    registry._plugin_modules.update(modules)
    registry._components.update(known)
    registry._broken_plugins.clear()
    registry._broken_plugins.update(broken)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def program(root: Path, tmp_path: Path) -> Callable[..., str]:
    """Run ``python -m mannlab`` in a process of its own, from an empty folder; its output comes back.

    ``before`` goes in front of PYTHONPATH, and hides the checkout if it has the program itself; ``code`` is
    the exit status to expect.
    """

    def run(*arguments: str, before: Path = root, code: int = 0, cwd: Path = tmp_path) -> str:
        places = [before] if (before / "mannlab").is_dir() else [before, root]
        environment = {"PYTHONPATH": os.pathsep.join(map(str, places))}
        if root in places:
            log = tmp_path / f"said_{len(list(tmp_path.glob('said_*')))}.txt"
            started = processes.start(processes.program, arguments, cwd=cwd, log=log, environment=environment)
            status, said = started.end()
        else:  # an installed copy
            command = [sys.executable, "-m", "mannlab", *arguments]
            environment = {**os.environ, **environment}
            done = subprocess.run(
                command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
            )
            status, said = done.returncode, done.stdout + done.stderr
        assert status == code, f"mannlab {' '.join(arguments)}\n{said}"
        return said

    return run
