"""Searches by Optuna: with the real package, jobs standing in."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from mannlab import registry
from mannlab.__main__ import main
from mannlab.errors import ConfigError
from mannlab.sweep import study
from mannlab.sweep.options import Options, Search
from mannlab.sweep.record import Sweep
from mannlab.sweep.space import Choice, Range, split
from tests.sweep.conftest import Children

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")


def test_the_space_is_hydras_grammar() -> None:
    words = ["a=tag(log,interval(1e-4,1e-2))", "b=int(interval(1,5))", "c=range(2,9,3)", "d=x,y", "e=3"]
    words += ["f=range(0,1,0.25)", "g=choice('p q',r)"]
    space, common = split(words, {"h": "interval(0,1)", "b": "interval(7,8)"})
    assert space == {
        "a": Range(1e-4, 1e-2, log=True),
        "b": Range(1, 5, whole=True),
        "c": Range(2, 8, 3, whole=True),
        "d": Choice(("x", "y")),
        "f": Range(0, 0.75, 0.25),
        "g": Choice((r"p\ q", "r")),
        "h": Range(0.0, 1.0),
    }
    assert common == ["e=3"]


def test_values_are_overrides() -> None:
    trial = optuna.trial.FixedTrial({"a": 0.001, "b": 4, "c": "none"})
    assert Range(1e-4, 1e-2, log=True).suggest(trial, "a") == "0.001"
    assert Range(2, 8, 2, whole=True).suggest(trial, "b") == "4"
    assert Choice(("none", "dense")).suggest(trial, "c") == "none"


@pytest.mark.parametrize("words", [["a=1"], ["a=interval(2,1)"], ["a=tag(log,interval(0,1))"]])
def test_an_impossible_space_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="search"):
        split(words, {})


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_samplers(name: str) -> None:
    assert type(study.sampler_of(Search(sampler=name))).__name__.lower().startswith(name)


def test_parts_of_optunas_own() -> None:
    node: dict[str, object] = {"_target_": "optuna.samplers.RandomSampler", "seed": 3}
    assert type(study.sampler_of(Search(sampler=node))).__name__ == "RandomSampler"
    node = {"_target_": "optuna.pruners.ThresholdPruner", "upper": 1.0}
    assert type(study.pruner_of(Search(pruner=node))).__name__ == "ThresholdPruner"
    for name in ("median", "hyperband", "halving", "none"):
        assert isinstance(study.pruner_of(Search(pruner=name)), optuna.pruners.BasePruner)


def test_a_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"mannlab\[optuna\]"):
        study.optuna()


def test_the_direction_is_the_tasks() -> None:
    for name, direction in (("copy", "minimize"), ("omniglot", "maximize")):
        assert study.direction_of(Search(), {"task": {"name": name}}) == direction
    assert study.direction_of(Search(direction="maximize"), {"task": {"name": "copy"}}) == "maximize"


def load(folder: Path) -> optuna.Study:
    return study_of(Sweep.read(folder))


def study_of(sweep: Sweep) -> optuna.Study:
    return optuna.load_study(study_name="mannlab", storage=study.storage_of(sweep))


SEARCH = ["sweep=optuna", "optimizer.lr=interval(0.5,1.0)", "sweep.search.startup_trials=5", "sweep.jobs=2"]


def test_a_search_and_more_of_it(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    folder = children(*SEARCH, "sweep.search.trials=3", "memory=dense,none", code=1)
    sweep = Sweep.read(folder)
    assert len(sweep.jobs) == 3
    trials = load(folder).trials
    for job in sweep.jobs:
        assert job.trial is not None
        trial = trials[job.trial]
        assert f"memory={trial.params['memory']}" in job.overrides
        assert job.folder.name.startswith(f"{job.number:03d}_optimizer.lr-")
        state = "FAIL" if trial.params["memory"] == "none" else "COMPLETE"
        assert trial.state.name == state
        assert trial.value == (None if state == "FAIL" else job.value)
    assert main(["resume", f"sweep={folder}", "failed=again"]) == 1
    assert "this sweep is a search" in capfd.readouterr().err
    assert main(["resume", f"sweep={folder}", "failed=keep", "sweep.search.trials=5"]) == 1
    assert "jobs kept: 3, to be run: 2" in capfd.readouterr().err
    assert len(load(folder).trials) == len(Sweep.read(folder).jobs) == 5
    assert len(children.starts(folder)) == len(set(children.starts(folder))) == 5


def test_what_was_lost_when_the_program_was_killed(children: Children) -> None:
    folder = children(*SEARCH, "sweep.search.trials=2")
    sweep = Sweep.read(folder)
    first, second = sweep.jobs
    # The study, as if it had not been told of either, and asked for one more.
    (folder / study.JOURNAL).unlink()
    fresh = optuna.create_study(study_name="mannlab", storage=study.storage_of(sweep), direction="minimize")
    for _ in range(3):
        fresh.ask({"optimizer.lr": optuna.distributions.FloatDistribution(0.5, 1.0)})
    second.status = first.status = "running"
    shutil.copyfile(second.folder / "summary.json", folder / "kept.json")
    (second.folder / "summary.json").unlink()
    sweep.save()
    assert main(["resume", f"sweep={folder}"]) == 0
    assert [trial.state.name for trial in load(folder).trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert [job.attempts for job in Sweep.read(folder).jobs] == [1, 2]


def test_trials_of_another_sweep_in_the_same_storage_are_left_alone(tmp_path: Path) -> None:
    search = Search(trials=2, storage=f"sqlite:///{tmp_path / 'shared.db'}")
    sweeps = [Sweep(tmp_path / name, options=Options(search=search)) for name in ("a", "b")]
    first = study.Study(sweeps[0], None, {}, "minimize")  # type: ignore[arg-type]
    for sweep in sweeps:
        first.study.ask().set_user_attr(study.SWEEP, str(sweep.folder))
    study.Study(sweeps[1], None, {}, "minimize")  # type: ignore[arg-type]
    assert [trial.state.name for trial in first.study.trials] == ["RUNNING", "FAIL"]


def test_a_hopeless_job_is_given_up(tmp_path: Path) -> None:
    search = Search(trials=3, pruner="median", startup_trials=1)
    sweep = Sweep(tmp_path, options=Options(search=search))
    source = study.Study(sweep, None, {}, "minimize")  # type: ignore[arg-type]
    good, bad = (study.Job(number, tmp_path / str(number), [], trial=number) for number in range(2))
    source.study.ask(), source.study.ask()
    assert not source.hopeless(good, {"history": [[10, 1.0], [20, 0.5]]})
    good.status, good.summary = "completed", {"objective": {"value": 0.5}}
    source.ended(good)
    assert not source.hopeless(bad, {"history": []})
    assert source.hopeless(bad, {"history": [[10, 3.0]]})
    bad.status = "pruned"
    source.ended(bad)
    assert [trial.state.name for trial in source.study.trials] == ["COMPLETE", "PRUNED"]
    assert source.study.trials[1].value == 3.0


def test_optunas_sweeper_alone_has_defaults(children: Children) -> None:
    folder = children("hydra/sweeper=optuna", "optimizer.lr=0.5,0.6", "+sweep.search.trials=1")
    assert json.loads((folder / "sweep.json").read_text())["options"]["search"]["trials"] == 1


NEEDY = """
from mannlab.memory.none import NoMemory
from mannlab.registry import register

@register("memory", "needy")
class Needy(NoMemory):
    def __init__(self, *, size: int) -> None:
        super().__init__()
"""


def test_what_is_searched_needs_no_default(
    children: Children, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "needy_plugin.py").write_text(NEEDY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    search = ["sweep=optuna", "memory=needy", "memory.size=range(2,5)", "sweep.search.trials=2"]
    folder = children("plugins=[needy_plugin]", *search)
    assert main(["resume", f"sweep={folder}", "sweep.search.trials=3"]) == 0
    assert all(job.overrides[0][:-1] == "memory.size=" for job in Sweep.read(folder).jobs)
