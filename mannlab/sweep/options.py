"""The options of a sweep: the group ``sweep=``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mannlab.errors import ConfigError, choices, require

ENGINES = ("local", "submitit_local", "submitit_slurm", "ray")
ON_ERROR = ("continue", "stop")
DIRECTIONS = ("auto", "minimize", "maximize")
SAMPLERS = ("tpe", "random", "cmaes", "gp")
PRUNERS = ("median", "hyperband", "halving", "none")
TARGET = "_target_"


@dataclass(frozen=True)
class Search:
    """How the values of jobs are chosen one after the other; the keys are those of ``sweep=optuna``."""

    trials: int = 20
    sampler: Any = "tpe"
    pruner: Any = "median"
    startup_trials: int = 5
    warmup_steps: int = 0
    direction: str = "auto"
    seed: int | None = 1
    space: dict[str, Any] = field(default_factory=dict)
    storage: str | None = None
    study_name: str = "mannlab"

    def __post_init__(self) -> None:
        _whole("search.trials", self.trials, 1)
        _whole("search.startup_trials", self.startup_trials, 0)
        _whole("search.warmup_steps", self.warmup_steps, 0)
        _mapping("search.space", self.space)
        _one_of("search.direction", self.direction, DIRECTIONS)
        for key, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if not (isinstance(value, Mapping) and TARGET in value):
                _one_of(f"search.{key}", "none" if value is None else value, known)


@dataclass(frozen=True)
class Options:
    """What the group ``sweep`` says; its yaml explains each key.

    Raises:
        ConfigError: a value that is not allowed.
    """

    engine: str = "local"
    jobs: Any = "auto"
    devices: Any = "auto"
    threads: Any = "auto"
    on_error: str = "continue"
    stall_minutes: float | None = 60
    grace_seconds: float = 60
    options: dict[str, Any] = field(default_factory=dict)
    search: Search | None = None

    def __post_init__(self) -> None:
        _one_of("engine", self.engine, ENGINES)
        _one_of("on_error", self.on_error, ON_ERROR)
        for key in ("jobs", "threads"):
            if getattr(self, key) != "auto":
                _whole(key, getattr(self, key), 1, "a whole number above 0, or auto")
        _number("grace_seconds", self.grace_seconds)
        if self.stall_minutes is not None:
            _number("stall_minutes", self.stall_minutes)
        listed = isinstance(self.devices, (list, tuple)) and len(self.devices) > 0
        if not listed and self.devices not in ("auto", "none", None):
            raise ConfigError(
                f"sweep.devices: {self.devices!r} is not allowed.",
                "Give the numbers of GPUs, such as [0,1], or auto, or none.",
            )

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Options:
        """From plain containers.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
        """
        found = dict(given or {})
        _known(found, cls, "sweep")
        for key in ("search", "options"):
            _mapping(key, found.get(key))
        if found.get("search") is not None:
            search = dict(found["search"])
            _known(search, Search, "sweep.search")
            found["search"] = Search(**search)
        found["options"] = dict(found.get("options") or {})
        return cls(**found)

    def plain(self) -> dict[str, Any]:
        """As plain containers, for ``sweep.json``."""
        return asdict(self)


def _known(given: Mapping[str, Any], cls: type, key: str) -> None:
    known = [one.name for one in fields(cls)]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{key}.{name}: there is no key '{name}' in {key}.", choices(name, known, "keys")
            )


def _one_of(key: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"sweep.{key}: {value!r} is not allowed.", choices(str(value), known, "allowed"))


def _whole(key: str, value: Any, least: int, what: str = "") -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(
        good, f"sweep.{key}: {value!r} is not allowed.", f"Give {what or f'a whole number from {least}'}."
    )


def _mapping(key: str, value: Any) -> None:
    good = value is None or isinstance(value, Mapping)
    require(good, f"sweep.{key}: {value!r} is not allowed.", "Give keys and values: {a: 1}.")


def _number(key: str, value: Any) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    require(good, f"sweep.{key}: {value!r} is not allowed.", "Give a number above 0.")
