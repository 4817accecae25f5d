"""``resume``: run what is left of a sweep, or go on with a run in its own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mannlab.cli import errors, saved
from mannlab.errors import ConfigError, choices
from mannlab.sweep import child, jobs, start, table
from mannlab.sweep.composition import Composition
from mannlab.sweep.options import Options
from mannlab.sweep.record import FILE, INTERRUPTED, RUNNING, Job, Lock, Sweep
from mannlab.sweep.space import split

USAGE = """usage: mannlab resume sweep=FOLDER [failed=keep] [sweep.jobs=2 ...]
       mannlab resume run=FOLDER
       mannlab resume last

A sweep: jobs that have a result are left alone; those that were interrupted go on from their last
checkpoint, and those that failed or never began are run (failed=keep leaves failed ones as they are).
Options of the sweep itself, such as sweep.jobs, may be changed. A search keeps its failed jobs, of which it
has learnt; more jobs of it are sweep.search.trials=N.

A run: goes on from its last checkpoint, with its own configuration, in its own folder.
Last is the newest run in outputs/, or the sweep that it belongs to."""

KEYS = ("sweep", "run", "failed")


def main(arguments: list[str]) -> int:
    """Go on; returns the exit code."""
    if {"-h", "--help"} & set(arguments) or not arguments:
        print(USAGE)
        return 0 if arguments else 2
    given, changes = understand(arguments)
    if "run" in given:
        return child.run(Path(given["run"]).resolve())
    return sweep(Path(given["sweep"]), changes, given.get("failed"))


def understand(arguments: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Our keys, and the options of the sweep that are to be changed.

    Raises:
        CheckpointError: the last run is meant, and there is none.
        ConfigError: an argument that is neither.
    """
    import yaml

    given: dict[str, str] = {}
    changes: dict[str, Any] = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if word in (saved.LAST, f"run={saved.LAST}") and not Path(saved.LAST).exists():
            word, equals = str(_newest()), ""
        if not equals and Path(word).is_dir():
            key = "sweep" if (Path(word) / FILE).is_file() else "run"
            if key in given:
                raise ConfigError("resume: one at a time.", f"Give {given[key]} or {word}.")
            given[key] = word
        elif key.startswith("sweep.") and equals:
            try:
                changes[key.removeprefix("sweep.")] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ConfigError(f"'{word}' cannot be read.", "Lists are [0,1], mappings {a: 1}.") from error
        elif key in KEYS and equals:
            given[key] = value
        else:
            raise ConfigError(
                f"resume: '{word}' is not understood.", f"{choices(key, KEYS, 'keys')}\n{USAGE}"
            )
    if ("sweep" in given) == ("run" in given):
        raise ConfigError("resume: say what.", "Give one of sweep=<folder> and run=<folder>.")
    if given.get("failed", "again") not in ("again", "keep"):
        raise ConfigError(f"failed: '{given['failed']}' is not allowed.", "Choose failed=again or keep.")
    return given, changes


def _newest() -> Path:
    """The newest run of outputs/, or the sweep that it is a job of."""
    run = saved.named(saved.LAST)
    return next((folder for folder in run.parents if (folder / FILE).is_file()), run)


def sweep(folder: Path, changes: Mapping[str, Any], failed: str | None = None) -> int:
    """Run what a sweep's folder says is missing.

    Args:
        folder: of the sweep.
        changes: of its options.
        failed: what to do with failed jobs: ``again`` or ``keep``; None: again, but for those of a search.

    Raises:
        ConfigError: there is no sweep, it is running, or it is a search and shall run failed jobs again.
    """
    found = Sweep.read(folder)
    if failed == "again" and found.options.search is not None:
        raise ConfigError(
            "failed=again: this sweep is a search, which has learnt of its failed jobs.",
            "Leave it out; for more jobs give sweep.search.trials=N.",
        )
    lock = Lock(found.folder)
    if not lock.take():
        raise ConfigError(f"The sweep in {found.folder} is running.", "Wait for its end, or stop it first.")
    start.hold(found, lock)
    try:
        found.options = changed(found.options, changes)
        again(found, failed != "keep")
    finally:
        start.take()
    table.report(found)
    return found.code


def changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """Options with some keys changed; ``search.trials`` is a key of the search.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    plain = options.plain()
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if first == "search" and options.search is None:
            raise ConfigError(
                f"sweep.{key}: this sweep does not search.", "Its jobs are all there from the start."
            )
        if rest and first in ("search", "options"):
            plain[first] = {**(plain.get(first) or {}), rest: value}
        else:
            plain[key] = value
    return Options.of(plain)


def again(found: Sweep, failed: bool) -> None:
    """Run the jobs that have no result."""
    for job in found.jobs:
        if job.status == RUNNING:
            recover(job)
    search = found.options.search
    # A study has been told of a failed trial, and does not take it back.
    waiting = found.unfinished(failed and search is None)
    kept = len(found.jobs) - len(waiting)
    more = max(0, search.trials - len(found.jobs)) if search is not None else 0
    errors.say(f"jobs kept: {kept}, to be run: {len(waiting) + more}")
    if not waiting and not more:
        found.status = "done"
        found.save()
        return
    if search is None:
        start.run_jobs(found, waiting)
        return
    from mannlab.sweep import study

    composition = Composition(**found.composition)
    composition.prepare()
    space, _ = split(composition.space, search.space)
    study.run(found, composition, space, waiting)


def recover(job: Job) -> None:
    """Find out what became of a job that was running when its sweep was killed.

    One that still runs is left as it is; whoever starts it will wait for its end instead.
    """
    if Lock(job.folder).held():
        return
    jobs.settle(job, INTERRUPTED)
    job.seconds = max(job.seconds, float(job.summary.get("wall_seconds") or 0))
