"""A search by Optuna: each job is a trial, told to the study as it goes.

The study lies in a journal in the sweep's folder, so that it goes on after whatever ended it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mannlab import compose, registry
from mannlab.errors import ConfigError, require
from mannlab.sweep import start
from mannlab.sweep.composition import Composition
from mannlab.sweep.devices import needs
from mannlab.sweep.jobs import PRUNED
from mannlab.sweep.options import TARGET, Options, Search
from mannlab.sweep.record import DONE, Job, Sweep
from mannlab.sweep.space import Space

JOURNAL = "optuna.log"
SWEEP = "sweep"  # the attribute of a trial that names the folder of its sweep


# ---------------------------------------------------------------------- Optuna's parts


def optuna() -> Any:
    """The package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna as package
    except ImportError as error:
        raise ConfigError(
            "sweep=optuna: the package optuna is not installed.", 'pip install "mannlab[optuna]"'
        ) from error
    package.logging.set_verbosity(package.logging.WARNING)
    return package


def sampler_of(search: Search) -> Any:
    """What ``sweep.search.sampler`` names."""
    samplers = optuna().samplers
    if isinstance(search.sampler, Mapping):
        return _made(search.sampler, "sweep.search.sampler")
    if search.sampler == "random":
        return samplers.RandomSampler(seed=search.seed)
    if search.sampler == "cmaes":
        _importable("cmaes", "sweep.search.sampler=cmaes")
        return samplers.CmaEsSampler(seed=search.seed, n_startup_trials=search.startup_trials)
    if search.sampler == "gp":
        _importable("scipy", "sweep.search.sampler=gp")
        return samplers.GPSampler(seed=search.seed, n_startup_trials=search.startup_trials)
    # constant_liar: jobs that run at the same time keep away from each other.
    return samplers.TPESampler(seed=search.seed, n_startup_trials=search.startup_trials, constant_liar=True)


def pruner_of(search: Search) -> Any:
    """What ``sweep.search.pruner`` names."""
    pruners = optuna().pruners
    if isinstance(search.pruner, Mapping):
        return _made(search.pruner, "sweep.search.pruner")
    if search.pruner in (None, "none"):
        return pruners.NopPruner()
    if search.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, search.warmup_steps))
    if search.pruner == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=max(1, search.warmup_steps))
    return pruners.MedianPruner(search.startup_trials, search.warmup_steps)


def _importable(package: str, key: str) -> None:
    from importlib.util import find_spec

    require(find_spec(package) is not None, f"{key}: {package} is not installed.", f"pip install {package}")


def _made(node: Mapping[str, Any], key: str) -> Any:
    from mannlab.training.build import instantiate

    require(TARGET in node, f"{key}._target_: missing.", "Name a class by its dotted path.")
    return instantiate(node, key)


def storage_of(sweep: Sweep) -> Any:
    """A journal in the sweep's folder, or what ``sweep.search.storage`` names."""
    package, search = optuna(), sweep.options.search
    if search is not None and search.storage:
        return search.storage
    backend = package.storages.journal.JournalFileBackend(str(sweep.folder / JOURNAL))
    return package.storages.JournalStorage(backend)


# ---------------------------------------------------------------------- the source of jobs


class Study:
    """Trials as jobs.

    Args:
        sweep: its record; jobs in it that have no result yet are run first.
        composition: how a job's configuration is made.
        space: what is searched.
        direction: ``"minimize"`` or ``"maximize"``.
        again: jobs of an earlier attempt to go on with.
    """

    def __init__(
        self,
        sweep: Sweep,
        composition: Composition,
        space: Space,
        direction: str,
        again: Sequence[Job] = (),
    ) -> None:
        assert sweep.options.search is not None
        self.sweep, self.composition, self.space = sweep, composition, space
        self.search = sweep.options.search
        self.total: int | None = self.search.trials
        self.waiting = list(again)
        self.study = optuna().create_study(
            storage=storage_of(sweep),
            study_name=self.search.study_name,
            direction=direction,
            sampler=sampler_of(self.search),
            pruner=pruner_of(self.search),
            load_if_exists=True,
        )
        self.trials: dict[int, Any] = {}
        self._reported: dict[int, int] = {}
        self._tidy()

    def _tidy(self) -> None:
        """Give up trials that never became a job; tell of jobs that ended while nobody looked.

        Trials of other sweeps, with which this one shares its storage, may run.
        """
        state = optuna().trial.TrialState
        known = {job.trial: job for job in self.sweep.jobs}
        for trial in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            if self.search.storage and trial.user_attrs.get(SWEEP) != self._own:
                continue
            if trial.number not in known:
                self.study.tell(trial.number, state=state.FAIL)
            elif known[trial.number] not in self.waiting:
                self.ended(known[trial.number])

    @property
    def _own(self) -> str:
        return str(self.sweep.folder)

    def plan(self) -> list[Job]:
        """As many jobs as there will be, all like one with the example of each value."""
        config = _example(self.composition, self.space)
        processes, gpus = needs(config, start.places(self.sweep.options))
        threads = config.get("threads") if isinstance(config.get("threads"), int) else None
        left = self.search.trials - len(self.sweep.jobs) + len(self.waiting)
        example = Job(0, self.sweep.folder, [], processes=processes, gpus=gpus, threads=threads)
        return [replace(example, number=number) for number in range(max(0, left))]

    def next(self) -> Job | None:
        """A job of before, or a new trial."""
        if self.waiting:
            return self.waiting.pop(0)
        if len(self.sweep.jobs) >= self.search.trials:
            return None
        trial = self.study.ask()
        trial.set_user_attr(SWEEP, self._own)
        swept = [f"{key}={one.suggest(trial, key)}" for key, one in self.space.items()]
        number = len(self.sweep.jobs)
        config = self.composition.compose(swept)
        common = [word for word in self.sweep.common if word not in swept]
        job = start.make_job(self.sweep, config, swept, common, number, f"{number:03d}_")
        job.trial, self.trials[trial.number] = trial.number, trial
        return job

    def _trial(self, job: Job) -> Any:
        if job.trial not in self.trials:
            found = self.study.get_trials(deepcopy=False)[job.trial]
            self.trials[job.trial or 0] = optuna().trial.Trial(self.study, found._trial_id)
        return self.trials[job.trial or 0]

    def hopeless(self, job: Job, pulse: dict[str, Any]) -> bool:
        """Report what a job measured; whether the pruner gives it up."""
        trial = self._trial(job)
        for step, value in pulse.get("history") or []:
            if step > self._reported.get(job.number, -1):
                trial.report(value, step)
                self._reported[job.number] = step
                if trial.should_prune():
                    return True
        return False

    def ended(self, job: Job) -> None:
        """Tell the study what came of it; what was interrupted is left open."""
        state, value = optuna().trial.TrialState, job.value
        if job.status == PRUNED:
            self.study.tell(job.trial, state=state.PRUNED, skip_if_finished=True)
        elif job.status in DONE and value is not None and math.isfinite(value):
            self.study.tell(job.trial, value, skip_if_finished=True)
        elif job.status != "interrupted":
            self.study.tell(job.trial, state=state.FAIL, skip_if_finished=True)


def _example(composition: Composition, space: Space) -> dict[str, Any]:
    """The configuration of some job: what is searched may have no default."""
    from omegaconf import open_dict

    config = composition.compose([f"{key}={one.example}" for key, one in space.items()])
    with open_dict(config):
        config.pop("hydra")
    return compose.plain(config)


# ---------------------------------------------------------------------- a search


def complete(options: Options) -> Options:
    """With the defaults of a search where none were given (``hydra/sweeper=optuna`` alone)."""
    return options if options.search is not None else replace(options, search=Search())


def check(options: Options, composition: Composition, space: Space) -> None:
    """Refuse what cannot work before anything is left on the disk.

    Raises:
        ConfigError: the package is missing, or the configuration is wrong.
    """
    assert options.search is not None
    optuna(), sampler_of(options.search), pruner_of(options.search)
    _example(composition, space)


def direction_of(search: Search, config: Mapping[str, Any]) -> str:
    """``"minimize"`` or ``"maximize"``: as given, or as the task's main metric wants it."""
    if search.direction != "auto":
        return search.direction
    task = config["task"]
    cls = registry.get("task", task["name"])
    objective: Any = getattr(cls, "objective", None)
    if objective is None:
        objective = registry.build("task", **dict(task)).objective
    return "maximize" if objective.mode == "max" else "minimize"


def run(sweep: Sweep, composition: Composition, space: Space, again: Sequence[Job] = ()) -> dict[str, Any]:
    """Search; returns what was best, as Hydra's sweepers do."""
    assert sweep.options.search is not None
    direction = direction_of(sweep.options.search, _example(composition, space))
    source = Study(sweep, composition, space, direction, again)
    start.carry_out(sweep, source)
    state = optuna().trial.TrialState
    if not source.study.get_trials(deepcopy=False, states=(state.COMPLETE,)):
        return {}
    best = source.study.best_trial
    return {"name": "optuna", "best_evaluated_params": best.params, "best_evaluated_result": best.value}
