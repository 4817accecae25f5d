"""Sweeps: processes of their own, failures noted, one table."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mannlab.__main__ import main
from mannlab.cli import sweep
from tests.cli.conftest import Room

# Stands in for the program: fails for memory=none, dies without a word for seed=3.
CHILD = """
import json, os, sys, pathlib
folder = pathlib.Path(sys.argv[-1].removeprefix("hydra.run.dir=").strip("'"))
given = sys.argv[1:-1]
if "seed=3" in given:
    print("out of luck", file=sys.stderr)
    os._exit(9)
status = "failed" if "memory=none" in given else "completed"
environment = {k: v for k, v in os.environ.items() if "RANK" in k or k.startswith(("PL_", "HYDRA"))}
summary = {"status": status, "steps": 3, "objective": {"metric": "errors", "value": len(given)},
           "metrics": {"test/errors": len(given)}, "given": given, "environment": environment}
(folder / "summary.json").write_text(json.dumps(summary))
sys.exit(status == "failed")
"""


@pytest.fixture
def children(room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Run a sweep of stand-in jobs; its folder comes back."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    plain = sweep.command

    def command(overrides: Sequence[str], folder: Path, flags: Sequence[str] = ()) -> list[str]:
        assert plain(overrides, folder, flags)[1:3] == ["-m", "mannlab"]
        return [sys.executable, str(script), *plain(overrides, folder, flags)[3:]]

    monkeypatch.setattr(sweep, "command", command)

    def run(*arguments: str, code: int = 0) -> Path:
        assert main(["-m", *arguments]) == code
        (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
        return folder

    return run


def summaries(folder: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/summary.json")}


def test_each_job_has_a_process_and_a_folder_named_by_what_differs(children: Callable[..., Path]) -> None:
    found = summaries(children("seed=1,2", "memory.slots=8,16", "test=false"))
    assert set(found) == {f"seed-{s}_memory.slots-{n}" for s in (1, 2) for n in (8, 16)}
    assert found["seed-2_memory.slots-8"]["given"] == ["seed=2", "memory.slots=8", "test=False"]


def test_jobs_do_not_see_traces_of_other_runs(
    children: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "RANK", "NODE_RANK", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "3")
    (found,) = summaries(children("seed=1")).values()
    assert found["environment"] == {}


def test_failed_jobs_do_not_end_the_others(
    children: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = children("memory=none,dense", "seed=1,3", code=1)
    record = json.loads((folder / "sweep.json").read_text())
    assert [job["status"] for job in record["jobs"]] == ["failed", "failed", "completed", "failed"]
    assert [job["exit_code"] for job in record["jobs"]] == [1, 9, 0, 9]
    dead = json.loads((folder / "memory-dense_seed-3" / "summary.json").read_text())
    assert dead["stderr"] == ["out of luck"]
    assert dead["overrides"] == ["memory=dense", "seed=3"]
    said = capfd.readouterr()
    assert "out of luck" in said.err
    assert "4 jobs, 3 of them did not finish well" in said.out
    assert "tensorboard --logdir" in said.out
    rows = list(csv.DictReader(io.StringIO((folder / "sweep.csv").read_text())))
    assert [(row["memory"], row["seed"], row["status"]) for row in rows][2] == ("dense", "1", "completed")
    assert rows[2]["test/errors"] == "2"


def test_hydras_options_and_flags_reach_the_jobs(children: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    folder = children(
        "seed=1", "hydra.verbose=true", "hydra.sweep.dir=outputs/sweeps/x", "--config-dir", "more"
    )
    (found,) = summaries(folder).values()
    assert found["given"] == ["--config-dir", str(tmp_path / "more"), "seed=1", "hydra.verbose=true"]


def test_a_wrong_key_is_found_before_any_job_starts(
    children: Callable[..., Path], refused: Callable[..., str], tmp_path: Path
) -> None:
    assert "Did you mean 'slots'?" in refused("-m", "memory.slotz=1,2")
    assert not list(tmp_path.glob("outputs/sweeps/*/*/"))


def test_the_table_holds_every_job() -> None:
    good = {"status": "solved", "steps": 1200, "sequences_until_solved": 640}
    first = sweep.Job(Path("a"), ["memory=dense", "seed=1"], "solved", 0, 1.0)
    first.summary = {**good, "objective": {"metric": "bit_errors", "value": 0.125}}
    second = sweep.Job(Path("b"), ["memory=none", "seed=1"], "failed", 1, 1.0, {"status": "failed"})
    console = Console(file=io.StringIO(), width=100)
    console.print(sweep.table([first, second]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].split() == ["memory", "seed", "status", "steps", "solved", "at", "bit", "errors"]
    assert lines[1].split() == ["dense", "1", "solved", "1,200", "640", "0.125"]
    assert lines[2].split() == ["none", "1", "failed"]


def test_the_exit_code_tells() -> None:
    job = sweep.Job(Path("a"), [], code=0)
    assert sweep.Sweep(Path(), [job]).code == 0
    assert sweep.Sweep(Path(), [job, sweep.Job(Path("b"), [], code=-9)]).code == 1
    assert sweep.Sweep(Path(), [job], interrupted=True).code == 130


def test_what_a_sweeper_is_told(tmp_path: Path, room: Room, children: Callable[..., Path]) -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    children("seed=1")
    launcher = Plugins.instance().class_name_to_class["hydra_plugins.mannlab_launcher.MannlabLauncher"]()
    good = sweep.Job(tmp_path, [], "completed", 0, summary={"objective": {"value": 0.5}})
    bad = sweep.Job(tmp_path, [], "failed", 1, summary={"objective": {"value": 0.5}})
    assert launcher._returned(good, []).return_value == 0.5  # type: ignore[attr-defined]
    assert math.isnan(launcher._returned(bad, []).return_value)  # type: ignore[attr-defined]
    assert "mannlab.yaml" in ConfigStore.instance().repo["hydra"]["launcher"]


@pytest.mark.parametrize("name", ["with space", "it's", "a=b,c", "[x]", "a\\b"])
def test_any_folder_survives_hydras_grammar(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (parsed,) = OverridesParser.create().parse_overrides(sweep.command([], Path("/tmp") / name)[3:])
    assert parsed.value() == f"/tmp/{name}"


def test_ctrl_c_stops_after_the_present_job(children: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    ask = f"import os, signal; os.kill({os.getpid()}, signal.SIGINT)\n"
    script.write_text(ask + CHILD)
    folder = children("seed=1,2", code=130)
    record = json.loads((folder / "sweep.json").read_text())
    assert [job["status"] for job in record["jobs"]] == ["completed"]
    assert record["interrupted"]


def test_sigterm_is_handed_on() -> None:
    found = sweep.Sweep(Path())
    before = signal.getsignal(signal.SIGTERM)
    with sweep.stop_requests(found) as processes:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        processes.append(process)
        os.kill(os.getpid(), signal.SIGTERM)
        assert process.wait(timeout=30) == -signal.SIGTERM
    assert found.interrupted
    assert signal.getsignal(signal.SIGTERM) == before
