"""Hydra's side of sweeps. Hydra accepts launchers only from the package ``hydra_plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict

from mannlab import compose
from mannlab.cli import sweep

# Hydra's own options that concern the sweep and not its jobs.
OF_THE_SWEEP = ("hydra.mode", "hydra.sweep", "hydra.run.dir", "hydra.launcher", "hydra/launcher")
OF_THE_SWEEPER = ("hydra.sweeper", "hydra/sweeper")


# A dictionary: Hydra executes this module before it is in sys.modules, where dataclasses look for it.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="mannlab",
    node={"_target_": "hydra_plugins.mannlab_launcher.MannlabLauncher"},
    provider="mannlab",
)


class MannlabLauncher(Launcher):
    """Runs the jobs one after the other, each in a fresh process."""

    def __init__(self) -> None:
        self.config: Any = None
        self.context: Any = None
        self.sweep: sweep.Sweep | None = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.sweep is None:
            self.sweep = sweep.begin(Path(str(self.config.hydra.sweep.dir)))
        returns = []
        for index, overrides in enumerate(job_overrides):
            job = self._prepare(list(overrides), initial_job_idx + index)
            of = f"/{initial_job_idx + len(job_overrides)}" if len(job_overrides) > 1 else ""
            print(f"\njob {initial_job_idx + index + 1}{of}  {' '.join(job.overrides)}", flush=True)
            self.sweep.run(job, sweep.command([*overrides, *self._of_hydra()], job.folder, self._flags()))
            returns.append(self._returned(job, list(overrides)))
            if self.sweep.interrupted:
                raise KeyboardInterrupt
        return returns

    def _prepare(self, overrides: list[str], number: int) -> sweep.Job:
        assert self.sweep is not None
        common = self._common_keys()
        swept = [word for word in overrides if word.partition("=")[0] not in common] or overrides
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
            # The folder is named by what differs between the jobs.
            config.hydra.overrides.task = swept
        name = str(OmegaConf.select(config, "hydra.sweep.subdir"))
        folder, again = self.sweep.folder / name, 2
        while folder.exists():
            folder, again = self.sweep.folder / f"{name}-{again}", again + 1
        folder.mkdir(parents=True)
        return sweep.Job(folder, swept)

    def _common_keys(self) -> set[str]:
        given = compose.texts(self.config.hydra.overrides.task)
        parsed = OverridesParser.create().parse_overrides(given)
        return {one.get_key_element() for one in parsed if not one.is_sweep_override()}

    def _of_hydra(self) -> list[str]:
        given = compose.texts(self.config.hydra.overrides.hydra)
        return [word for word in given if not word.lstrip("+~").startswith(OF_THE_SWEEP + OF_THE_SWEEPER)]

    def _flags(self) -> list[str]:
        flags = []
        if self.config.hydra.job.config_name != "config":
            flags += ["--config-name", str(self.config.hydra.job.config_name)]
        for source in self.config.hydra.runtime.config_sources:
            if source.provider == "command-line":
                flags += ["--config-dir", str(source.path)]
            elif source.provider == "main" and str(source.path) != str(compose.conf_dir()):
                flags += ["--config-path", str(source.path)]
        return flags

    def _returned(self, job: sweep.Job, overrides: list[str]) -> JobReturn:
        # Completed even if it failed: Hydra would give up the jobs that are left.
        returned = JobReturn(overrides=overrides, working_dir=str(job.folder), task_name="train")
        returned.return_value = float("nan") if job.value is None else job.value
        returned.status = JobStatus.COMPLETED
        return returned
