"""A run made from what is stored in its folder: a job of a sweep, or a run that goes on.

Nothing is read from the command line but the folder, so that the processes that Lightning starts for
further devices, with the same arguments, train what the first one does.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mannlab import compose, registry
from mannlab.cli import errors, logs
from mannlab.errors import ConfigError, MannlabError
from mannlab.files import read_json, write_json
from mannlab.sweep import jobs
from mannlab.sweep.record import DONE, Lock

CONFIG = "config.yaml"
DAMAGED = "It was damaged or changed. What it held is in summary.json too, if there is one."


def run(folder: Path) -> int:
    """Train what a run folder says, from its last checkpoint if there is one; returns the exit code.

    A folder that holds a finished run is left alone. Another process at work in it is waited for.

    Raises:
        ConfigError: there is no configuration in the folder.
        MannlabError: what went wrong in the run; it is written down before.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"There is no {CONFIG} in {folder}.", "Give the folder of a run: run=outputs/...")
    if not first_process():
        return _train(folder)
    lock = Lock(folder)
    if not lock.take():
        errors.say(f"another process is at work in {folder}; waiting for its end")
        lock.take(wait=True)
    try:
        summary = read_json(folder / jobs.SUMMARY)
        if summary.get("status") in DONE:
            more = longer(folder, int(summary.get("steps") or 0))
            errors.say(f"{folder} is finished already; longer, in a folder of its own: {more}")
            return 0
        if jobs.PARENT in os.environ and jobs.asked_to_stop(folder):
            # Before it had begun.
            return errors.INTERRUPTED
        jobs.fresh(folder)
        try:
            with guarded():
                return _train(folder)
        finally:
            _put_back(summary, folder)
    finally:
        lock.free()


def _put_back(before: Mapping[str, Any], folder: Path) -> None:
    """Of an attempt that ended before its first step, the results of the one before stay."""
    now = read_json(folder / jobs.SUMMARY)
    if before.get("steps") and not now.get("steps") and now.get("status") not in DONE:
        with suppress(OSError):
            write_json(folder / jobs.SUMMARY, before)


def longer(folder: Path, steps: int) -> str:
    """The command that trains a finished run of so many steps for as many again."""
    config = stored(folder)
    limits = ("ckpt_path=", "trainer.max_steps=", "trainer.max_time=", "hydra.run.dir=")
    kept = [word for word in config["overrides"] if not word.startswith(limits)]
    more = [f"trainer.max_steps={2 * steps}"]
    if (config.get("trainer") or {}).get("max_time"):
        more.append("trainer.max_time=null")  # the time so far counts
    return shlex.join(["mannlab", *kept, f"ckpt_path={folder}", *more])


def first_process() -> bool:
    """Whether this is not one of the further processes of a run on several devices."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _train(folder: Path) -> int:
    config = stored(folder)
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    try:
        _logging(folder)
        registry.load_plugins(config.get("plugins") or [])
        from mannlab.training import run
        from mannlab.training.callbacks.pulse import Pulse

        summary = run.train(config, folder, also=[Pulse(folder)])
    except Exception as error:
        if first_process():
            keep(error, folder, config["overrides"])
        raise
    finally:
        logs.reset(handlers, level)
    return errors.INTERRUPTED if summary.get("status") == "interrupted" else 0


def stored(folder: Path) -> dict[str, Any]:
    """The configuration of a run folder, going on from its last checkpoint if there is one.

    Raises:
        ConfigError: a file of it holds something else, or cannot be read.
    """
    config = _read(folder / CONFIG)
    if not isinstance(config, dict):
        raise ConfigError(f"{folder / CONFIG} holds no configuration.", DAMAGED)
    given = folder / ".hydra" / "overrides.yaml"
    overrides = (_read(given) if given.is_file() else None) or []
    if not isinstance(overrides, list):
        raise ConfigError(f"{given} holds no list.", DAMAGED)
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        config["ckpt_path"] = str(last)
    return {**config, "overrides": overrides}


def _read(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", DAMAGED) from error


def _logging(folder: Path) -> None:
    """Log as the run's own Hydra configuration says, or to ``train.log``."""
    from hydra.core.utils import configure_log
    from omegaconf import OmegaConf, open_dict

    path = folder / ".hydra" / "hydra.yaml"
    if path.is_file() and first_process():
        compose.register_resolvers()
        config = OmegaConf.load(path)
        # It may refer to the run's own configuration.
        config = OmegaConf.merge(OmegaConf.load(folder / CONFIG), config)
        with open_dict(config):
            OmegaConf.update(config, "hydra.runtime.output_dir", str(folder), force_add=True)
        configure_log(config.hydra.job_logging, config.hydra.verbose)
    logs.console()


def keep(error: BaseException, folder: Path, overrides: list[str]) -> None:
    """Write down in a run folder why it failed, as far as that is possible."""
    what, hint = errors.explain(error)
    text, trace = f"{what}\n{hint}".rstrip(), "".join(traceback.format_exception(error)).rstrip()
    logs.to_file(text if isinstance(error, MannlabError) else f"{text}\n{trace}")
    try:
        (folder / jobs.TRACEBACK).write_text(trace + "\n", encoding="utf-8")
        if not (folder / jobs.SUMMARY).exists():
            jobs.write_failure(folder, overrides, what, code=1)
    except (OSError, ValueError):
        logs.to_file("summary.json could not be written")


# ---------------------------------------------------------------------- a parent that dies


@contextmanager
def guarded() -> Iterator[None]:
    """Inside, a job of a sweep whose program is killed saves and ends, instead of running on unseen."""
    parent = os.environ.get(jobs.PARENT, "")
    over = threading.Event()
    if parent.isdigit():
        grace = float(os.environ.get(jobs.GRACE, "60"))
        threading.Thread(target=_watch, args=(int(parent), over, grace), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(parent: int, over: threading.Event, grace: float) -> None:
    while os.getppid() == parent:
        if over.wait(1.0):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    until = time.monotonic() + grace
    while time.monotonic() < until:
        if over.wait(1.0):
            return
    # It hangs. Only a session of our own holds nobody else's processes.
    if os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
