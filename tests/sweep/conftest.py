"""Sweeps of stand-in jobs: small programs that write what a run would, at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mannlab.__main__ import main
from mannlab.sweep import jobs, schedule
from mannlab.sweep.record import Sweep

# Fails for memory=none, dies without a word for seed=3, hangs for seed=4; notes each time it is started.
CHILD = """
import json, os, pathlib, signal, sys, time
import yaml
folder = pathlib.Path(sys.argv[1])
given = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
with (folder.parent / "starts.txt").open("a") as file:
    file.write(f"{folder.name}\\n")
print("hello from", folder.name, flush=True)
if "seed=3" in given:
    print("out of luck", file=sys.stderr)
    os._exit(9)
def write(status):
    traces = ("PL_", "HYDRA", "SLURM")
    environment = {k: v for k, v in os.environ.items() if "RANK" in k or k.startswith(traces)}
    limits = {k: os.environ.get(k) for k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MANNLAB_CORES")}
    value = len(given) + float(dict(word.split("=", 1) for word in given).get("optimizer.lr", 0))
    summary = {"status": status, "steps": 3, "given": given, "environment": environment, "limits": limits,
               "objective": {"metric": "errors", "mode": "min", "value": value},
               "metrics": {"test/errors": value}, "error": "too bad" if status == "failed" else None}
    (folder / "summary.json").write_text(json.dumps(summary))
if "seed=4" in given:
    def leave(*_):
        write("interrupted")
        os._exit(130)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "memory=lrua" in given else leave)
    (folder / "ready").touch()
    time.sleep(60)
write("failed" if "memory=none" in given else "completed")
sys.exit("memory=none" in given)
"""


class Children:
    """Runs the program with stand-in jobs."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs

    def __call__(self, *arguments: str, code: int = 0) -> Path:
        """A sweep; its folder comes back."""
        assert main(["-m", *arguments]) == code
        (folder,) = (self.outputs / "sweeps").iterdir()
        return folder

    def starts(self, folder: Path) -> list[str]:
        """The folders of all jobs that were started, as often as they were."""
        path = folder / "starts.txt"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Children:
    """Nothing is trained; sweeps land below the test's own folder."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "command", lambda folder: [sys.executable, str(script), str(folder)])
    monkeypatch.setattr(schedule, "POLL", 0.02)
    monkeypatch.setattr(schedule, "LOOK", 0.05)
    for name in ("HYDRA_FULL_ERROR", "LOCAL_RANK", "RANK", "SLURM_PROCID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return Children(tmp_path / "outputs")


@pytest.fixture
def records() -> Callable[[Path], dict[str, dict[str, object]]]:
    """The jobs in a sweep's file, by their overrides."""

    def read(folder: Path) -> dict[str, dict[str, object]]:
        return {" ".join(job.overrides): job.record() for job in Sweep.read(folder).jobs}

    return read
