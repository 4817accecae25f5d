"""``eval``: test a saved run again, as it was or with other options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mannlab import compose, registry
from mannlab.cli import keywords, logs, saved, yamls
from mannlab.errors import CheckpointError, ConfigError, choices

USAGE = """usage: mannlab eval RUN [ckpt=best|last|FILE] [key=value ...] [plugins=[module,...]]

Tests a run's checkpoint on the test sets of its own configuration, with overrides on top, such as
task.lengths=[30,60,120] or trainer.accelerator=cpu. The table also goes to eval_<time>.json in the
run's folder and, where there are test sets of several sizes, to a picture beside it.
RUN is a run folder (or run=FOLDER), a .ckpt file in one, or last: the newest run in outputs/."""

# What a saved configuration may say. Its trainer, callbacks and loggers are left alone: they could name
# any class, and a folder may come from somebody else.
TRUSTED = (
    "controller",
    "memory",
    "task",
    "model",
    "seed",
    "batch_size",
    "eval_batch_size",
    "workers",
    "threads",
)
COMPONENTS = ("controller", "memory", "task", "model", "trainer")
KINDS = ("best", "last")


def main(arguments: list[str]) -> int:
    """Test a run; returns the exit code."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0
    word, which, overrides = read_arguments(arguments)
    run = saved.named(word)
    config, checkpoint = prepare(run, which, overrides, arguments)
    logs.console()
    from mannlab.training.saved import evaluate

    folder = saved.folder(run)
    out = folder / f"eval_{compose.stamp()}.json"
    evaluate(config, checkpoint, out)
    print(f"checkpoint  {checkpoint}\nresult      {out}")
    for picture in sorted(folder.glob(f"{out.stem}_*.png")):
        print(f"picture     {picture}")
    return 0


def prepare(
    run: Path, which: str, overrides: Sequence[str], arguments: Sequence[str]
) -> tuple[dict[str, Any], Path]:
    """A saved run's configuration with ``overrides``, and the checkpoint that is meant; plugins are loaded.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: an override does not fit.
    """
    registry.load_plugins(compose.named_plugins(arguments))
    found = saved.config(saved.folder(run))
    config = override(fresh(found), overrides)
    missing_plugins(found, config)
    from mannlab.training.checkpoints import find_checkpoint

    if run.is_file():
        return config, run
    if which in KINDS:
        return config, find_checkpoint(run, which)
    if Path(which).exists():
        return config, find_checkpoint(Path(which))
    raise CheckpointError(f"ckpt: there is no '{which}'.", f"{choices(which, KINDS)}, or a .ckpt file")


def read_arguments(arguments: Sequence[str]) -> tuple[str, str, list[str]]:
    """The run as it is named, which checkpoint of it, and the overrides.

    Raises:
        ConfigError: no run is named, or something cannot be read.
    """
    run, which, overrides = "", "best", []
    for word in arguments:
        key, equals, value = word.partition("=")
        if key == "run" and equals:
            run = value
        elif key in ("ckpt", "ckpt_path") and equals:
            which = value
        elif key.lstrip("+") == "plugins" and equals:
            continue
        elif equals and not word.startswith("-"):
            overrides.append(word)
        elif not run and not word.startswith("-"):
            run = word
        else:
            raise ConfigError(f"'{word}' cannot be read.", USAGE)
    if not run:
        raise ConfigError("Which run?", f"{USAGE}\n\n{saved.newest()}")
    return run, which, overrides


def own_arguments(arguments: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """A command's own keys with what they are given, and the rest, which is read as ``eval`` does.

    Raises:
        ConfigError: a key of the rest is a misspelt one of the command's.
    """
    own: dict[str, str] = {}
    rest = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if key in names and equals:
            own[key] = value
        else:
            if equals:
                check_spelling(key, (*names, "run", "ckpt"))
            rest.append(word)
    return own, rest


def check_given(own: Mapping[str, str], usage: str) -> None:
    """Raise :class:`ConfigError` for a key that is given nothing."""
    for key, value in own.items():
        if not value.strip():
            raise ConfigError(f"{key}: it is empty.", usage)


def check_spelling(key: str, own: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for a key that is none of a run's, but close to a command's ``own``."""
    bare = key.lstrip("-").lower()
    known = {*TRUSTED, *COMPONENTS, *own, "ckpt_path", "plugins"}
    if key not in known and get_close_matches(bare, own, n=1):
        raise ConfigError(f"{key}: there is no key '{key}'.", choices(bare, own, "keys"))


def fresh(config: dict[str, Any]) -> dict[str, Any]:
    """What to evaluate with: the run's parts, and a trainer of our own."""
    conf = compose.conf_dir()
    trainer = yamls.values(conf / "trainer" / "default.yaml")
    precision = (config.get("trainer") or {}).get("precision")
    if isinstance(precision, (str, int)):
        trainer["precision"] = precision
    plain = {key: value for key, value in yamls.values(conf / "config.yaml").items() if key in TRUSTED}
    plain |= {key: config[key] for key in TRUSTED if key in config}
    for kind in registry.ROOMS:  # options may have come to exist since
        with suppress(ConfigError):
            part = plain.get(kind) or {}
            plain[kind] = {**registry.defaults(registry.get(kind, str(part.get("name")))), **part}
    # Never stepped, but a part of what a module is made of.
    unused = {"optimizer": yamls.values(conf / "optimizer" / "adam.yaml"), "scheduler": None}
    return {**plain, **unused, "trainer": trainer}


def override(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with ``key=value`` put in; keys must be there already, or be Lightning's.

    Raises:
        ConfigError: an unknown key, a value that cannot be read, or a whole part.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    node: Any = OmegaConf.create(config)
    OmegaConf.set_struct(node, True)
    if "trainer" in node:
        OmegaConf.set_struct(node.trainer, False)
    for word in overrides:
        key, _, _ = word.partition("=")
        key = key.lstrip("+")
        if key.startswith("trainer."):
            keywords.check(key.split(".")[1])
        if key in COMPONENTS:
            raise ConfigError(
                f"{key}: a run is tested with the {key} it was trained with.",
                f"Options can be changed: {key}.<option>=<value>.",
            )
        try:
            node = OmegaConf.merge(node, OmegaConf.from_dotlist([word.lstrip("+")]))
        except YAMLError as error:
            raise ConfigError(f"'{word}' cannot be read.", "Write key=value; lists are [1,2,3].") from error
        except OmegaConfBaseException as error:
            raise unknown(key, config) from error
    return compose.plain(node)


def unknown(key: str, config: Any) -> ConfigError:
    """The error for a key that is not there, naming the part of it that is wrong."""
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        if not isinstance(config, dict) or part not in config:
            where = ".".join([*parents, last][:depth])
            known = config if isinstance(config, dict) else ()
            what = f"{key}: there is no key '{part}'" + (f" in {where}." if where else ".")
            return ConfigError(what, choices(part, map(str, known), "keys"))
        config = config[part]
    return ConfigError(f"{key}: this value does not fit there.", "")


def missing_plugins(found: dict[str, Any], config: dict[str, Any]) -> None:
    """Modules that a saved configuration names are not imported on its word.

    Raises:
        ConfigError: a component is unknown, and the run was made with plugins that were not named here.
    """
    named = found.get("plugins") or []
    for kind in registry.ROOMS:
        try:
            registry.get(kind, str(config[kind].get("name")))
        except ConfigError as error:
            if not named:
                raise
            again = f"plugins=[{','.join(map(str, named))}]"
            raise ConfigError(
                error.what, f"The run was made with {again}; if you trust them, say so here, too."
            ) from error
