"""A sweep from its first job to its table; what Hydra's side and ``resume`` share."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mannlab import compose
from mannlab.errors import ConfigError
from mannlab.sweep import devices, live
from mannlab.sweep.engines import Engine, Local
from mannlab.sweep.options import Options
from mannlab.sweep.record import FILE, Job, Lock, Sweep
from mannlab.sweep.schedule import Listed, Schedule, Source

_current: list[Sweep] = []
_locks: list[Lock] = []
_expected: list[Path] = []


def expect(folder: Path) -> None:
    """Note the folder that Hydra is going to make for a sweep."""
    _expected[:] = [folder.resolve()]


def begin(folder: Path, options: Options, chosen: bool = False) -> Sweep:
    """A new sweep, to be reported by the program when Hydra is done.

    Args:
        folder: where it goes. If another sweep has it already, a folder beside it.
        options: of the sweep.
        chosen: the user named the folder.

    Raises:
        ConfigError: the folder that the user named holds a sweep.
    """
    wanted, again = folder, 2
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
        if lock.take() and not (folder / FILE).exists():
            break
        lock.free()
        if chosen:
            raise ConfigError(
                f"hydra.sweep.dir: there is a sweep in {folder} already.",
                f"To run what is left of it: python -m mannlab resume sweep={folder}",
            )
        folder, again = wanted.with_name(f"{wanted.name}-{again}"), again + 1
    if folder != wanted and (wanted / "multirun.yaml").is_file():
        shutil.copyfile(wanted / "multirun.yaml", folder / "multirun.yaml")
    sweep = Sweep(folder.resolve(), options=options, command=sys.argv[1:], began=time.time())
    hold(sweep, lock)
    return sweep


def hold(sweep: Sweep, lock: Lock) -> None:
    """Make it the program's present sweep."""
    _current[:], _locks[:] = [sweep], [lock]


def take() -> Sweep | None:
    """The sweep that ran, if one did; its folder is free from now on."""
    while _locks:
        _locks.pop().free()
    _expected.clear()
    return _current.pop() if _current else None


def engine_of(options: Options, folder: Path) -> Engine:
    """What ``sweep.engine`` names.

    Raises:
        ConfigError: its package is not installed.
    """
    if options.engine == "local":
        return Local(options)
    from mannlab.sweep import clusters

    return clusters.ENGINES[options.engine](options, folder)


def carry_out(sweep: Sweep, source: Source) -> None:
    """Run what a source has to give.

    Raises:
        ConfigError: a job that can never run, or a package is missing.
    """
    engine = engine_of(sweep.options, sweep.folder)
    engine.plan(source.plan())
    Schedule(sweep, engine, source, live.view(engine.room)).run()


def run_jobs(sweep: Sweep, waiting: Sequence[Job]) -> None:
    """Run jobs that are known from the start."""
    sweep.jobs += [job for job in waiting if job not in sweep.jobs]
    carry_out(sweep, Listed(waiting))


def remove_unbegun() -> None:
    """Remove the folders of a sweep that was refused before any job of it started."""
    present = _current[0] if _current else None
    if present is not None and any(job.attempts for job in present.jobs):
        return
    for found in {*_expected, *([present.folder] if present is not None else [])}:
        ours = present is not None and found == present.folder
        if found.is_dir() and (ours or {path.name for path in found.iterdir()} <= {"multirun.yaml"}):
            shutil.rmtree(found, ignore_errors=True)
    take()


# ---------------------------------------------------------------------- folders of jobs


def make_job(
    sweep: Sweep, config: Any, swept: list[str], common: list[str], number: int, first: str = ""
) -> Job:
    """Write all that a job needs into a new folder.

    Args:
        sweep: it will be in this one's folder.
        config: composed by Hydra, with its own node.
        swept: overrides that differ between the jobs: they name the folder.
        common: overrides that all jobs share.
        number: from 0.
        first: what the name of the folder begins with.

    Raises:
        ConfigError: a value is missing, or the sweep cannot give the job what it needs.
    """
    import yaml
    from omegaconf import OmegaConf, open_dict

    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
        config.hydra.overrides.task = swept
        name = first + str(OmegaConf.select(config, "hydra.sweep.subdir"))
        folder = _free(sweep.folder / name)
        config.hydra.overrides.task = [*swept, *common]
        config.hydra.runtime.output_dir = str(folder)
        hydra = OmegaConf.create({"hydra": config.pop("hydra")})
    plain = compose.plain(config)
    plain.pop("sweep", None)
    processes, gpus = devices.needs(plain, places(sweep.options))
    (folder / ".hydra").mkdir(parents=True)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    OmegaConf.save(hydra, folder / ".hydra" / "hydra.yaml")
    OmegaConf.save(OmegaConf.create([*swept, *common]), folder / ".hydra" / "overrides.yaml")
    threads = plain.get("threads")
    fixed = threads if isinstance(threads, int) else None
    return Job(number, folder, swept, processes=processes, gpus=gpus, threads=fixed)


def places(options: Options) -> list[str]:
    """The GPUs that jobs are shared out to; what a cluster has is not known here."""
    here = options.engine in ("local", "submitit_local")
    return devices.shared(options.devices) if here else ["of the cluster"]


def _free(folder: Path) -> Path:
    found, again = folder, 2
    while found.exists():
        found, again = folder.with_name(f"{folder.name}-{again}"), again + 1
    return found
