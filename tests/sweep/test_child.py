"""A job made from its folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import mannlab.training.run
from mannlab.__main__ import main
from mannlab.errors import ConfigError
from mannlab.sweep import child, jobs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a run could be made from."""
    for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID", jobs.PARENT, "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    found = tmp_path / "job"
    (found / ".hydra").mkdir(parents=True)
    (found / "config.yaml").write_text(yaml.safe_dump({"seed": 3, "ckpt_path": None}))
    (found / ".hydra" / "overrides.yaml").write_text("- seed=3\n")
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Path]]:
    """What the training room was asked for."""
    found = []

    def train(config: dict[str, Any], run_dir: Path, also: Any = ()) -> dict[str, Any]:
        assert [type(one).__name__ for one in also] == ["Pulse"]
        found.append((config, run_dir))
        if config["seed"] == 9:
            raise RuntimeError("the roof fell down")
        (run_dir / "summary.json").write_text('{"status": "completed"}')
        return {"status": "completed"}

    monkeypatch.setattr(mannlab.training.run, "train", train)
    return found


def test_all_comes_from_the_folder(folder: Path, calls: list[tuple[dict[str, Any], Path]]) -> None:
    jobs.ask_to_stop(folder, "of an earlier attempt")
    assert child.run(folder) == 0
    assert calls == [({"seed": 3, "ckpt_path": None, "overrides": ["seed=3"]}, folder)]
    assert not (folder / jobs.STOP).exists()


def test_it_goes_on_from_the_last_checkpoint(folder: Path, calls: list[tuple[dict[str, Any], Path]]) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    assert child.run(folder) == 0
    assert calls[0][0]["ckpt_path"] == str(folder / "checkpoints" / "last.ckpt")


def test_what_is_finished_is_left_alone(folder: Path, calls: list[tuple[dict[str, Any], Path]]) -> None:
    (folder / "summary.json").write_text('{"status": "solved"}')
    assert child.run(folder) == 0
    assert calls == []


def test_a_job_stopped_before_it_began_does_not_begin(
    folder: Path, calls: list[tuple[dict[str, Any], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(jobs.PARENT, str(os.getppid()))
    jobs.ask_to_stop(folder, "interrupted")
    assert child.run(folder) == 130
    assert calls == []


def test_a_failure_is_written_down(
    folder: Path, calls: list[tuple[dict[str, Any], Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.yaml").write_text("seed: 9\n")
    assert main(["resume", f"run={folder}"]) == 1
    assert "the roof fell down" in capfd.readouterr().err
    assert "Traceback" in (folder / jobs.TRACEBACK).read_text()
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", text) for text in ("", "a: [", "7", "\xff")]
    + [(".hydra/overrides.yaml", text) for text in ("a: [", "7", "a: 3")],
)
def test_files_that_hold_something_else_are_explained(
    folder: Path, calls: list[Any], name: str, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(text, encoding="latin-1")
    assert main(["resume", f"run={folder}"]) == 1
    said = capfd.readouterr().err
    assert str(folder / name) in said
    assert "damaged or changed" in said
    assert calls == []


@pytest.mark.parametrize(("said", "kept"), [(None, 7), ({"steps": 0}, 7), ({"steps": 9}, 9)])
def test_an_attempt_without_a_step_leaves_the_results_of_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any] | None, kept: int
) -> None:
    before = {"status": "interrupted", "steps": 7, "metrics": {"val/errors": 0.5}}
    (folder / "summary.json").write_text(json.dumps(before))

    def refuse(config: dict[str, Any], run_dir: Path, also: Any = ()) -> dict[str, Any]:
        if said is not None:
            (run_dir / "summary.json").write_text(json.dumps({"status": "failed", **said}))
        raise ConfigError("trainer.accelerator: there is no GPU.")

    monkeypatch.setattr(mannlab.training.run, "train", refuse)
    assert main(["resume", f"run={folder}"]) == 1
    found = json.loads((folder / "summary.json").read_text())
    assert found["steps"] == kept
    assert (found == before) == (kept == 7)
    assert "no GPU" in (folder / jobs.TRACEBACK).read_text()


def test_further_processes_take_no_lock_and_write_nothing(
    folder: Path, calls: list[tuple[dict[str, Any], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "summary.json").write_text('{"status": "completed"}')
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert child.run(folder) == 0
    assert len(calls) == 1
    assert not (folder / ".lock").exists()


ORPHAN = """
import os, subprocess, sys
code = '''
import os, signal, sys, time
from mannlab.sweep import child
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1] + "/saved", "w").close(), os._exit(0)))
with child.guarded():
    open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
    time.sleep(100)
'''
environment = os.environ | {"MANNLAB_PARENT": str(os.getpid()), "MANNLAB_GRACE": "0.5"}
subprocess.Popen([sys.executable, "-c", code, *sys.argv[1:]], env=environment, start_new_session=True)
import time; time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["heeding", "deaf"])
def test_a_job_whose_program_is_killed_ends(tmp_path: Path, root: Path, kind: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path), kind], env=environment)
    until = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.05)
    (pid,) = (int(path.name) for path in tmp_path.iterdir())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while _lives(pid):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (tmp_path / "saved").exists() == (kind == "heeding")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_sweep_with_several_devices_trains_on_all_data(program: Callable[..., str], tmp_path: Path) -> None:
    tiny = ["task.max_length=3", "task.lengths=[4]", "controller.hidden=8", "memory=none", "logger=none"]
    tiny += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.max_steps=4"]
    tiny += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.val_check_interval=2", "batch_size=4"]
    program("-m", *tiny, "trainer.devices=1,2,1", "seed=1", "sweep.jobs=1")
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    found = [json.loads(path.read_text()) for path in sorted(sweep.glob("*/summary.json"))]
    assert [one["sequences"] for one in found] == [16, 16, 32]
    assert found[0]["metrics"] == found[1]["metrics"]
