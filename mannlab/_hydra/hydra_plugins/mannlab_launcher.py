"""Hydra's side of sweeps. Hydra accepts launchers and sweepers only from the package ``hydra_plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from mannlab import compose
from mannlab.cli import errors
from mannlab.errors import ConfigError
from mannlab.sweep import start
from mannlab.sweep.composition import Composition
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job, Sweep
from mannlab.sweep.space import split

# Hydra's own options that concern the sweep and not its jobs.
OF_THE_SWEEP = ("hydra.mode", "hydra.sweep", "hydra.run.dir", "hydra.launcher", "hydra/launcher")
OF_THE_SWEEPER = ("hydra.sweeper", "hydra/sweeper")


# Dictionaries: Hydra executes this module before it is in sys.modules, where dataclasses look for it.
for group, name, cls in (
    ("hydra/launcher", "mannlab", "MannlabLauncher"),
    ("hydra/sweeper", "optuna", "OptunaSweeper"),
):
    node = {"_target_": f"hydra_plugins.mannlab_launcher.{cls}"}
    ConfigStore.instance().store(group=group, name=name, node=node, provider="mannlab")
MANY = 20  # jobs, to be told that it takes a while


def of_sweep(word: str) -> bool:
    """Whether an override says how to sweep, and not what to train."""
    key = word.lstrip("+~").partition("=")[0]
    return key == "sweep" or key.startswith("sweep.")


def options_of(config: Any) -> Options:
    """The sweep's options in a composed configuration."""
    given = OmegaConf.select(config, "sweep")
    return Options.of(None if given is None else OmegaConf.to_container(given, resolve=True))  # type: ignore[arg-type]


def begin(config: Any) -> Sweep:
    """A new sweep in the folder that Hydra's options name."""
    chosen = any("hydra.sweep.dir" in word for word in compose.texts(config.hydra.overrides.hydra))
    return start.begin(Path(str(config.hydra.sweep.dir)), options_of(config), chosen)


def composition_of(config: Any, common: Sequence[str]) -> Composition:
    """How further jobs are composed."""
    given = compose.texts(config.hydra.overrides.hydra)
    ours = [word for word in given if not word.lstrip("+~").startswith(OF_THE_SWEEP + OF_THE_SWEEPER)]
    sources = list(config.hydra.runtime.config_sources)
    main = next((str(source.path) for source in sources if source.provider == "main"), None)
    folders = [str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"]
    name = str(config.hydra.job.config_name)
    return Composition(main or str(compose.conf_dir()), name, [*common, *ours], folders)


class MannlabLauncher(Launcher):
    """Runs jobs in fresh processes: on this machine, or where ``sweep.engine`` says."""

    def __init__(self) -> None:
        self.config: Any = None
        self.context: Any = None
        self.sweep: Sweep | None = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config, self.context = config, hydra_context
        start.expect(Path(str(config.hydra.sweep.dir)))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.sweep is None:
            self.sweep = begin(self.config)
        common = self._common()
        self.sweep.common = [word for word in common.values() if not of_sweep(word)]
        if len(job_overrides) > MANY:
            errors.say(f"preparing {len(job_overrides)} jobs")
        found = [
            self._prepare(list(overrides), initial_job_idx + index, common)
            for index, overrides in enumerate(job_overrides)
        ]
        if not self.sweep.interrupted:
            start.run_jobs(self.sweep, found)
        if self.sweep.by_user:
            raise KeyboardInterrupt
        return [self._returned(job) for job in found]

    def _prepare(self, overrides: list[str], number: int, common: dict[str, str]) -> Job:
        assert self.sweep is not None
        swept = [word for word in overrides if word.partition("=")[0] not in common] or [
            word for word in overrides if not of_sweep(word)
        ]
        wrong = next((word for word in swept if of_sweep(word)), None)
        if wrong is not None:
            key = wrong.partition("=")[0]
            raise ConfigError(f"{key}: a sweep has one value of it.", "Give one value, or start two sweeps.")
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        shared = [word for word in overrides if word not in swept and not of_sweep(word)]
        return start.make_job(self.sweep, config, swept, shared, number)

    def _common(self) -> dict[str, str]:
        given = compose.texts(self.config.hydra.overrides.task)
        parsed = OverridesParser.create().parse_overrides(given)
        return {one.get_key_element(): str(one.input_line) for one in parsed if not one.is_sweep_override()}

    def _returned(self, job: Job) -> JobReturn:
        # Completed even if it failed: Hydra would give up the jobs that are left.
        returned = JobReturn(overrides=job.overrides, working_dir=str(job.folder), task_name="train")
        returned.return_value = float("nan") if job.value is None else job.value
        returned.status = JobStatus.COMPLETED
        return returned


class OptunaSweeper(Sweeper):
    """Chooses the values of each job by what came of those before."""

    def __init__(self) -> None:
        self.config: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config = config
        start.expect(Path(str(config.hydra.sweep.dir)))

    def sweep(self, arguments: list[str]) -> Any:
        from mannlab.sweep import study

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        options = study.complete(options_of(self.config))
        assert options.search is not None
        space, common = split(arguments, options.search.space)
        shared = [word for word in common if not of_sweep(word)]
        composition = composition_of(self.config, shared)
        composition.space = [word for word in arguments if word not in common]
        study.check(options, composition, space)
        sweep = begin(self.config)
        sweep.options, sweep.common, sweep.composition = options, shared, composition.plain()
        best = study.run(sweep, composition, space)
        if sweep.by_user:
            raise KeyboardInterrupt
        return best
