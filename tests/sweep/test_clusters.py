"""Engines of other packages, as far as one machine can show; SLURM's commands are stand-ins."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest

from mannlab.errors import ConfigError
from mannlab.files import read_json
from mannlab.sweep import clusters, jobs
from mannlab.sweep.engines import Engine, Handle
from mannlab.sweep.options import Options, Search
from mannlab.sweep.record import Job, Sweep
from tests.sweep.conftest import Children

SBATCH = """#!{python}
import os, subprocess, sys
number = str(len(open("{log}").readlines()) + 1) if os.path.exists("{log}") else "1"
open("{log}", "a").write(" ".join(sys.argv[1:]) + "\\n")
script = open(sys.argv[-1]).read()
open("{log}.script", "w").write(script)
environment = os.environ | {{"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "here",
    "SLURM_JOB_NUM_NODES": "1"}}
subprocess.Popen(["bash", sys.argv[-1]], env=environment, stdout=subprocess.DEVNULL,
                 stderr=subprocess.DEVNULL, start_new_session=True)
print("Submitted batch job " + number)
"""
SRUN = """#!{python}
import os, sys
words = sys.argv[1:]
while words and words[0].startswith("-"):
    words = words[2:] if words[0] in ("--output", "--error") else words[1:]
os.execvp(words[0], words)
"""
SACCT = """#!{python}
print("JobID|State|NodeList|Partition")
"""


def wait(handle: Handle) -> int:
    until = time.monotonic() + 120
    while (code := handle.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    return code


def job(folder: Path, *overrides: str) -> Job:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(f"[{', '.join(overrides)}]")
    return Job(0, folder, list(overrides))


def outcomes(engine: Engine, folder: Path) -> list[tuple[str, str]]:
    """Of a job that succeeds and of one that dies."""
    found = []
    for name, override in (("good", "seed=1"), ("dead", "seed=3")):
        one = job(folder / name, override)
        one.code = wait(engine.start(one))
        jobs.settle(one)
        found.append((one.status, one.traceback or ""))
    engine.close()
    return found


def test_submitit_on_this_machine(children: Children, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra submitit is not installed")
    engine = clusters.SubmititLocal(Options(engine="submitit_local", jobs=2), tmp_path)
    good, dead = outcomes(engine, tmp_path)
    assert good[0] == "completed"
    assert (dead[0], "out of luck" in dead[1]) == ("failed", True)


def test_slurm(children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="the extra submitit is not installed")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", SACCT)):
        path = commands / name
        path.write_text(text.format(python=sys.executable, log=tmp_path / "submitted"))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    given = {"timeout_min": 5, "cpus_per_task": 4, "slurm_partition": "fast", "mem_gb": None}
    engine = clusters.Slurm(Options(engine="submitit_slurm", options=given), tmp_path)
    good, dead = outcomes(engine, tmp_path)
    assert good[0] == "completed"
    assert (dead[0], "out of luck" in dead[1]) == ("failed", True)
    script = (tmp_path / "submitted.script").read_text()
    assert "--partition=fast" in script
    assert "--cpus-per-task=4" in script
    limits = read_json(tmp_path / "good" / "summary.json")
    assert limits["limits"]["MANNLAB_CORES"] == "4"
    # Lightning would look for SLURM's other tasks.
    assert limits["environment"] == {}


def test_a_search_on_a_cluster_learns_from_its_first_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "executor", lambda options, folder, cluster: None)
    for search, room in ((None, clusters.UNLIMITED), (Search(trials=20), 5), (Search(trials=1), 1)):
        assert clusters.Slurm(Options(engine="submitit_slurm", search=search), tmp_path).room == room
    given = Options(engine="submitit_slurm", search=Search(trials=20), jobs=20)
    assert clusters.Slurm(given, tmp_path).room == 20


class LargeCluster:
    """Stands for Ray's package."""

    def init(self, **settings: object) -> None:
        """There is nothing to begin."""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 64.0}


@pytest.mark.parametrize(("search", "room"), [(None, 64), (Search(trials=20), 5)])
def test_a_search_on_ray_learns_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Search | None, room: int
) -> None:
    monkeypatch.setattr(clusters, "package", lambda name: LargeCluster())
    engine = clusters.Ray(Options(engine="ray", search=search), tmp_path)
    engine.plan([Job(0, tmp_path, [])])
    assert engine.room == room


def test_slurm_without_slurm_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="the extra submitit is not installed")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="submitit refused"):
        clusters.Slurm(Options(engine="submitit_slurm"), tmp_path)
    with pytest.raises(ConfigError, match="submitit refused"):
        clusters.SubmititLocal(Options(engine="submitit_local", options={"timeout_minutes": 3}), tmp_path)


def test_a_job_that_must_leave_its_machine_is_queued_again(children: Children, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra submitit is not installed")
    one = job(tmp_path / "job", "seed=1")
    remote = clusters.remote_of(one, {"A": "1"}, Options(grace_seconds=5))
    assert remote() == 0
    again = remote.checkpoint()
    assert (one.folder / jobs.QUEUED).exists()
    assert again.function() == 0
    assert not (one.folder / jobs.QUEUED).exists()
    assert again.function == remote


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_missing_package_is_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"mannlab\[{name}\]"):
        clusters.package(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_on_this_machine(children: Children) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    folder = children("sweep=ray", "seed=1,3", "+sweep.options.init={num_cpus: 2}", code=1)
    assert [one.status for one in Sweep.read(folder).jobs] == ["completed", "failed"]
    assert "out of luck" in str(Sweep.read(folder).jobs[1].traceback)
