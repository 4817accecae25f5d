"""``train``: Hydra composes, the training room runs."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mannlab import compose, registry
from mannlab.cli import errors, keywords, logs
from mannlab.errors import ConfigError, MannlabError, choices
from mannlab.sweep import child, start, table
from mannlab.sweep.child import first_process

# Hydra's flags, and whether a value follows.
FLAGS = {
    "--help": False,
    "-h": False,
    "--hydra-help": False,
    "--version": False,
    "--resolve": False,
    "--run": False,
    "-r": False,
    "--multirun": False,
    "-m": False,
    "--shell-completion": False,
    "-sc": False,
    "--cfg": True,
    "-c": True,
    "--package": True,
    "-p": True,
    "--config-path": True,
    "-cp": True,
    "--config-name": True,
    "-cn": True,
    "--config-dir": True,
    "-cd": True,
    "--experimental-rerun": True,
    "--info": True,
    "-i": True,
}
# Of which there can be one.
MODES = {
    "--run": "run",
    "-r": "run",
    "--multirun": "sweep",
    "-m": "sweep",
    "--cfg": "show",
    "-c": "show",
    "--info": "info",
    "-i": "info",
    "--shell-completion": "complete",
    "-sc": "complete",
}
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass
class Outcome:
    """How a single run ended."""

    code: int = 0
    error: BaseException | None = None


def main(arguments: list[str]) -> int:
    """Train, sweep, or whatever else Hydra is asked for; returns the exit code."""
    arguments = keywords.admit(flags_first(arguments))
    if "--version" in arguments:
        from mannlab import __version__

        print(f"mannlab {__version__}")
        return 0
    outcome = Outcome()
    interrupted = False
    try:
        start_hydra(arguments, outcome)
    except KeyboardInterrupt:
        interrupted = True
        errors.say("interrupted")
    except Exception:
        start.remove_unbegun()
        raise
    finally:
        finished = start.take()
        if finished is not None:
            table.report(finished)
    if interrupted:
        return errors.INTERRUPTED
    if outcome.error is not None:
        raise outcome.error
    return finished.code if finished is not None else outcome.code


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Flags before overrides, as Hydra 1.3 wants them.

    Raises:
        ConfigError: Hydra has no such flag, or two that do not go together.
    """
    flags: list[str] = []
    overrides: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name = word.partition("=")[0]
        if not word.startswith("-"):
            overrides.append(word)
            continue
        if name not in FLAGS:
            known = choices(name, [flag for flag in FLAGS if flag.startswith("--")], "flags")
            hint = f"Options are given as key=value, such as optimizer.lr=0.001.\n{known}"
            raise ConfigError(f"There is no flag '{word}'.", hint)
        flags.append(word)
        if name in ("--info", "-i") and "=" not in word:
            flags[-1] = f"--info={words.pop(0) if words and words[0] in INFO else 'all'}"
        elif FLAGS[name] and "=" not in word:
            if not words:
                raise ConfigError(f"{word}: a value is missing.", "--hydra-help says what it takes.")
            flags.append(words.pop(0))
    modes = [flag for flag in flags if flag.partition("=")[0] in MODES]
    if len({MODES[flag.partition("=")[0]] for flag in modes}) > 1:
        raise ConfigError(
            f"{' and '.join(modes)} do not go together.",
            "One configuration is shown, or one sweep run: leave out one of them (a configuration has one "
            "value for each key).",
        )
    return flags + overrides


def check_recipe(arguments: Sequence[str]) -> None:
    """Refuse a recipe that is not there: to Hydra it is optional, since not every task has one.

    Raises:
        ConfigError: there is no such recipe.
    """
    folders = compose.yaml_folders(arguments)
    known = {path.stem for folder in folders for path in (folder / "recipe").glob("*.yaml")}
    for argument in arguments:
        name = argument.removeprefix("recipe=")
        if name != argument and re.fullmatch(r"\w+", name) and name not in known:
            raise ConfigError(f"There is no recipe '{name}'.", choices(name, known, "recipe"))


def start_hydra(arguments: list[str], outcome: Outcome) -> None:
    """Hand over to Hydra; ``outcome`` says afterwards how a single run ended."""
    compose.find_launcher()
    compose.register_resolvers()
    compose.publish(arguments)
    check_recipe(arguments)
    import hydra
    from omegaconf import DictConfig

    def job(config: DictConfig) -> float | None:
        with errors.users_environment():
            return run_job(config, outcome)

    where = {"config_path": str(compose.conf_dir()), "config_name": "config"}
    program = hydra.main(**where, **compose.hydra_base())(job)
    before, level = sys.argv, logging.getLogger().level
    handlers = list(logging.getLogger().handlers)
    # Lightning's processes for further devices are started with these arguments, too.
    sys.argv = [sys.argv[0], *arguments]
    try:
        with errors.hydra_raises():
            program()
    finally:
        sys.argv = before
        logs.reset(handlers, level)


def run_job(config: Any, outcome: Outcome) -> float | None:
    """One run in this process; returns what a sweeper wants to optimise."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    overrides = compose.texts(hydra_config.overrides.task)
    alone = hydra_config.mode != RunMode.MULTIRUN
    logs.console()
    try:
        plain = compose.plain(config)
        check_mode(plain, plain.pop("sweep", None) or {}, alone)
        with logs.warnings_kept():
            summary = train(plain, overrides, run_dir)
    except Exception as error:
        outcome.error, outcome.code = error, 1
        child.keep(error, run_dir, overrides)
        if alone and isinstance(error, MannlabError) and first_process():
            remove_unbegun(run_dir)
        # Sweepers of other launchers want to hear of it.
        if not alone or errors.trace_wanted():
            raise
        return None
    if summary.get("status") == "interrupted":
        outcome.code = errors.INTERRUPTED
    return (summary.get("objective") or {}).get("value")


def check_mode(config: Mapping[str, Any], sweep: Mapping[str, Any], alone: bool) -> None:
    """Refuse a sweep that is none, and several devices in a process that others share.

    Raises:
        ConfigError: one of the two.
    """
    if alone and (sweep.get("search") or sweep.get("engine", "local") != "local"):
        name = "optuna" if sweep.get("search") else sweep["engine"]
        raise ConfigError(f"sweep={name}: this is a single run.", "To run many jobs, put -m first.")
    devices = (config.get("trainer") or {}).get("devices")
    if not alone and devices not in (1, "1", [0], None):
        raise ConfigError(
            f"trainer.devices: {devices!r} does not go with Hydra's own launchers: jobs that share a process "
            "train on the wrong share of the data.",
            "Leave hydra/launcher out. sweep=local, ray, submitit_local and submitit_slurm start each job "
            "afresh.",
        )


# What a run leaves before its first batch.
UNBEGUN = {".hydra", "config.yaml", "train.log", "summary.json", "traceback.txt"}


def remove_unbegun(run_dir: Path) -> None:
    """Remove the folder of a run that was refused before it began, and the folders that this leaves empty."""
    logs.close_files()
    with suppress(OSError):
        steps = json.loads((run_dir / "summary.json").read_text(encoding="utf-8")).get("steps") or 0
        if steps or {path.name for path in run_dir.iterdir()} - UNBEGUN:
            return
        shutil.rmtree(run_dir)
        # The task's and the model's folder of outputs/<task>/<model>/<time>, never more.
        for parent in list(run_dir.parents)[:2]:
            parent.rmdir()


def train(config: dict[str, Any], overrides: list[str], run_dir: Path) -> dict[str, Any]:
    """Leave ``config.yaml``, then train."""
    import yaml

    # That of a run that is taken up in its own folder stays until this one is found to be the same.
    if first_process() and not (run_dir / "checkpoints").is_dir():
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (run_dir / "config.yaml").write_text(text, encoding="utf-8")
    # An experiment may name plugins that the command line did not.
    registry.load_plugins(config.get("plugins") or [])
    from mannlab.training import run

    return run.train({**config, "overrides": overrides}, run_dir)
