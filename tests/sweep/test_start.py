"""A sweep through the program's door: processes of their own, failures noted, refusals clean."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mannlab.__main__ import main
from mannlab.errors import ConfigError
from mannlab.sweep import start
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job, Sweep
from tests.sweep.conftest import Children


def summaries(folder: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/summary.json")}


def test_each_job_has_a_process_and_a_folder_named_by_what_differs(children: Children) -> None:
    found = summaries(children("seed=1,2", "memory.slots=8,16", "test=false", "sweep.jobs=3"))
    assert {re.sub(r"-[0-9a-f]{6}$", "", name) for name in found} == {
        f"seed-{s}_memory.slots-{n}" for s in (1, 2) for n in (8, 16)
    }
    (one,) = (found[name] for name in found if name.startswith("seed-2_memory.slots-8-"))
    assert one["given"] == ["seed=2", "memory.slots=8", "test=False"]


def test_a_job_is_stored_as_a_run_is(children: Children) -> None:
    folder = children("seed=5", "memory=none,dense", "sweep.jobs=2", code=1)
    (job,) = folder.glob("memory-dense-*")
    config = yaml.safe_load((job / "config.yaml").read_text())
    assert config["seed"] == 5
    assert config["memory"]["name"] == "dense"
    assert "sweep" not in config
    assert "hydra" not in config
    assert yaml.safe_load((job / ".hydra" / "overrides.yaml").read_text()) == ["memory=dense", "seed=5"]
    assert str(job) in (job / ".hydra" / "hydra.yaml").read_text()
    assert (job / "job.log").read_text() == f"hello from {job.name}\n"


def test_jobs_do_not_see_traces_of_other_runs(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "RANK", "PL_GLOBAL_SEED", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.setenv(name, "3")
    (found,) = summaries(children("seed=1")).values()
    assert found["environment"] == {}


def test_failed_jobs_do_not_end_the_others(
    children: Children,
    records: Callable[[Path], dict[str, dict[str, object]]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = children("memory=none,dense", "seed=1,3", code=1)
    found = records(folder)
    assert [job["status"] for job in found.values()] == ["failed", "failed", "completed", "failed"]
    assert [job["exit_code"] for job in found.values()] == [1, 9, 0, 9]
    assert found["memory=none seed=1"]["error"] == "too bad"
    assert "exit code 9" in str(found["memory=dense seed=3"]["error"])
    assert "out of luck" in str(found["memory=dense seed=3"]["traceback"])
    said = capfd.readouterr().out
    assert "out of luck" in said
    assert "4 jobs, 3 of them did not finish well" in said
    assert f"python -m mannlab resume sweep={folder.relative_to(Path.cwd())}" in said
    rows = list(csv.DictReader(io.StringIO((folder / "sweep.csv").read_text())))
    assert [(row["memory"], row["seed"], row["status"]) for row in rows][2] == ("dense", "1", "completed")
    assert rows[2]["test/errors"] == "2.0"


def test_a_failed_job_ends_the_others_when_asked_to(
    children: Children, records: Callable[[Path], dict[str, dict[str, object]]]
) -> None:
    folder = children("seed=3,1,2", "sweep.on_error=stop", "sweep.jobs=1", code=1)
    assert [job["status"] for job in records(folder).values()] == ["failed", "waiting", "waiting"]
    assert len(children.starts(folder)) == 1


def test_flags_and_options_of_hydras_reach_the_jobs(children: Children, tmp_path: Path) -> None:
    (tmp_path / "more" / "memory").mkdir(parents=True)
    (tmp_path / "more" / "memory" / "mine.yaml").write_text("name: dense\nslots: 3\n")
    more = ("hydra.verbose=true", "hydra.sweep.dir=outputs/sweeps/x", "--config-dir=more")
    folder = children("memory=mine", *more)
    (job,) = folder.glob("memory-mine-*")
    assert yaml.safe_load((job / "config.yaml").read_text())["memory"] == {"name": "dense", "slots": 3}
    assert yaml.safe_load((job / ".hydra" / "hydra.yaml").read_text())["hydra"]["verbose"] is True


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["memory.slotz=1,2"], ["Did you mean 'slots'?"]),
        (["memory.slots=8,???"], ["memory.slots", "missing"]),
        (["sweep=locl", "seed=1,2"], ["no sweep 'locl'", "Did you mean 'local'?"]),
        (["sweep.jbs=2", "seed=1,2"], ["sweep.jbs", "Did you mean 'jobs'?"]),
        (["sweep.jobs=0", "seed=1,2"], ["sweep.jobs: 0", "above 0"]),
        (["sweep.jobs=1,2"], ["sweep.jobs", "one value"]),
        (["sweep.engine=rey", "seed=1,2"], ["sweep.engine: 'rey'", "Did you mean 'ray'?"]),
        (["sweep.on_error=stopp", "seed=1,2"], ["sweep.on_error", "Did you mean 'stop'?"]),
        (["sweep.devices=two", "seed=1,2"], ["sweep.devices", "[0,1]"]),
        (["sweep.stall_minutes=-1", "seed=1,2"], ["sweep.stall_minutes", "above 0"]),
        (["trainer.num_nodes=2", "seed=1,2"], ["trainer.num_nodes", "one machine"]),
        (["sweep=optuna", "seed=1"], ["nothing is to be searched", "interval"]),
        (["sweep=optuna", "seed=1,2", "sweep.search.sampler=tpf"], ["sweep.search.sampler", "'tpe'"]),
        (["sweep=optuna", "optimizer.lr=interval(2,1)"], ["optimizer.lr", "nothing to search"]),
        (["sweep=optuna", "optimizer.lrr=interval(1,2)"], ["optimizer.lrr", "Did you mean 'lr'?"]),
    ],
)
def test_what_is_refused_leaves_nothing(
    children: Children, arguments: list[str], expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", *arguments]) == 1
    said = capfd.readouterr().err
    for words in expected:
        assert words in said
    assert "Traceback" not in said
    assert not list(children.outputs.glob("sweeps/*"))


@pytest.mark.parametrize("preset", ["optuna", "ray", "submitit_local", "submitit_slurm"])
def test_a_preset_without_m_is_refused(
    children: Children, preset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([f"sweep={preset}"]) == 1
    assert "put -m first" in capfd.readouterr().err
    assert not list(children.outputs.glob("copy/*"))


def test_a_folder_with_a_sweep_is_not_written_over(
    children: Children, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = children("seed=1", "hydra.sweep.dir=outputs/sweeps/x")
    before = (folder / "sweep.json").read_text()
    assert main(["-m", "seed=1,2", "hydra.sweep.dir=outputs/sweeps/x"]) == 1
    assert "resume sweep=outputs/sweeps/x" in capfd.readouterr().err
    assert (folder / "sweep.json").read_text() == before


def test_two_sweeps_of_one_moment_have_two_folders(tmp_path: Path) -> None:
    first = start.begin(tmp_path / "now", Options())
    lock = start._locks.pop()
    second = start.begin(tmp_path / "now", Options())
    assert first.folder != second.folder
    lock.free()
    start.take()
    first.save()
    with pytest.raises(ConfigError, match="already"):
        start.begin(tmp_path / "now", Options(), chosen=True)


def test_what_a_sweeper_is_told(children: Children, tmp_path: Path) -> None:
    from hydra.core.plugins import Plugins

    children("seed=1")
    launcher = Plugins.instance().class_name_to_class["hydra_plugins.mannlab_launcher.MannlabLauncher"]()
    good = Job(0, tmp_path, [], "completed", summary={"objective": {"value": 0.5}})
    bad = Job(1, tmp_path, [], "failed", summary={"objective": {"value": 0.5}})
    assert launcher._returned(good).return_value == 0.5  # type: ignore[attr-defined]
    assert math.isnan(launcher._returned(bad).return_value)  # type: ignore[attr-defined]


def test_batches_of_a_sweeper_are_one_sweep(children: Children) -> None:
    folder = children("seed=1,2,5", "hydra.sweeper.max_batch_size=2", "sweep.jobs=2")
    assert [job.number for job in Sweep.read(folder).jobs] == [0, 1, 2]
    assert len(children.starts(folder)) == 3


def test_shares_reach_the_jobs(children: Children) -> None:
    folder = children("seed=1,2", "trainer=gpu", "sweep.devices=[4,7]", "sweep.threads=3")
    limits = [found["limits"] for found in summaries(folder).values()]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in limits} <= {"4", "7"}  # type: ignore[index]
    assert all(one["OMP_NUM_THREADS"] == one["MANNLAB_CORES"] == "3" for one in limits)  # type: ignore[index]
