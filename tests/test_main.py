"""The door of the program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mannlab
from mannlab import __main__ as program

HEAVY = ("torch", "lightning", "torchvision", "torchmetrics", "matplotlib", "tensorboard")


def test_commands_are_told_apart() -> None:
    assert program.choose([]) == ("mannlab.cli.train", [])
    assert program.choose(["task=copy"]) == ("mannlab.cli.train", ["task=copy"])
    assert program.choose(["train", "task=copy"]) == ("mannlab.cli.train", ["task=copy"])
    assert program.choose(["eval", "--help"]) == ("mannlab.cli.evaluate", ["--help"])
    assert program.choose(["list"]) == ("mannlab.cli.listing", [])
    assert program.choose(["a=1", "-h"])[0] == "mannlab.cli.help"
    assert program.choose(["train", "-h"])[0] == "mannlab.cli.help"
    assert program.choose(["-sc", "query=bash"])[0] == "mannlab.cli.complete"


@pytest.mark.parametrize(
    ("raised", "code"), [(KeyboardInterrupt, 130), (RuntimeError, 1), (BrokenPipeError, 1)]
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise raised

    monkeypatch.setattr("mannlab.cli.listing.main", fail)
    monkeypatch.setattr("mannlab.cli.errors.close_pipes", lambda: None)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert program.main(["list"]) == code
    assert "Traceback" not in capfd.readouterr().err


def test_the_public_names_are_there() -> None:
    from mannlab.model import assemble
    from mannlab.registry import build, register
    from mannlab.training.saved import load

    assert (mannlab.build, mannlab.register, mannlab.load, mannlab.assemble) == (
        build,
        register,
        load,
        assemble,
    )
    assert set(mannlab.__all__) <= set(dir(mannlab))
    with pytest.raises(AttributeError, match="nothing"):
        mannlab.nothing  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"], ["--version"]])
def test_nothing_heavy_is_imported_at_the_door(arguments: list[str], root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mannlab.__main__ import main; code = main(sys.argv[1:]);"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules];"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "COMP_LINE": "mannlab memory=",
        "MANNLAB_DISABLE_PLUGINS": "1",
    }
    began = time.monotonic()
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # A tenth of what torch alone takes on a slow machine; about 0.3 s on a quiet one.
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_the_module_runs(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mannlab", "memory=dens"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Did you mean 'dense'?" in done.stderr
