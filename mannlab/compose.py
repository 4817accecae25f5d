"""The registry and Hydra: where configurations lie, and how components without a yaml get into them."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from mannlab import registry
from mannlab.errors import ConfigError

LONGEST_FOLDER = 60

_published: list[tuple[str, str]] = []


def conf_dir() -> Path:
    """The folder of the built-in yaml files: inside an installed package, at the root of a checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "conf"
    return inside if inside.is_dir() else here.parent / "conf"


def hydra_base() -> dict[str, str]:
    """The ``version_base`` argument: Hydra 1.3 warns without it, Hydra 1.4 with it."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def find_launcher() -> None:
    """Let Hydra find our launcher and sweepers: other Hydra programs do not see their folder."""
    folder = str(Path(__file__).resolve().parent / "_hydra")
    if folder not in sys.path:
        sys.path.append(folder)


# ---------------------------------------------------------------------- plugins


def named_plugins(arguments: Sequence[str]) -> list[str]:
    """The modules of ``plugins=[a,b]`` or ``plugins=a`` among the arguments."""
    modules: list[str] = []
    for argument in arguments:
        found = re.fullmatch(r"\+{0,2}plugins=(.*)", argument, flags=re.DOTALL)
        if found:
            words = re.split(r"[\s,]+", found[1].strip().strip("[]"))
            modules = [word.strip("'\"") for word in words if word.strip("'\"") not in ("", "null")]
    return modules


def plugins_of_experiment(arguments: Sequence[str]) -> list[str]:
    """The modules under the key ``plugins`` of the yaml file of ``experiment=name``, if there is one."""
    import yaml

    for argument in arguments:
        found = re.fullmatch(r"\+?experiment=(\w+)", argument)
        paths = (
            [folder / "experiment" / f"{found[1]}.yaml" for folder in yaml_folders(arguments)]
            if found
            else []
        )
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            named = values.get("plugins") if isinstance(values, dict) else None
            return [str(module) for module in (named if isinstance(named, list) else [named]) if module]
    return []


def yaml_folders(arguments: Sequence[str] = ()) -> list[Path]:
    """Folders that may hold yaml files of components, in Hydra's order: the first that has a file wins.

    Ours, those of plugins, ``--config-dir``, ``hydra.searchpath``.
    """
    folders = [conf_dir(), *plugin_folders()]
    for flag, value in pairwise(arguments):
        if flag in ("--config-dir", "-cd"):
            folders.append(Path(value))
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folders.append(Path(value))
        elif flag == "hydra.searchpath":
            folders += [_searched(word) for word in re.split(r"[\s,]+", value.strip("[]"))]
    return folders


def _searched(word: str) -> Path:
    word = word.strip("'\"")
    if word.startswith("pkg://"):
        from importlib.util import find_spec

        package, *parts = word.removeprefix("pkg://").replace("/", ".").split(".")
        spec = find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0], *parts) if places else Path(word)
    return Path(word.removeprefix("file://"))


def plugin_folders() -> dict[Path, str]:
    """The folders ``conf`` of the plugins that were loaded, and the package of each.

    That of a plugin ``lab.memories.ring`` is the first there is of ``lab/memories/ring/conf``,
    ``lab/memories/conf`` and ``lab/conf``.
    """
    found: dict[Path, str] = {}
    for plugin in registry.plugin_modules():
        package = plugin
        while package:
            places = getattr(sys.modules.get(package), "__path__", ())
            folders = [Path(place, "conf").absolute() for place in places]
            folders = [folder for folder in folders if folder.is_dir()]
            if folders:
                found.setdefault(folders[0], package)
                break
            package = package.rpartition(".")[0]
    return found


def hidden_yamls() -> list[str]:
    """What to say of each yaml of a plugin that is never read, an earlier folder having one of its name."""
    seen = {path.relative_to(conf_dir()): "mannlab" for path in conf_dir().glob("*/*.yaml")}
    said = []
    for folder, package in plugin_folders().items():
        for path in sorted(folder.glob("*/*.yaml")):
            owner = seen.setdefault(path.relative_to(folder), package)
            if owner != package:
                what = f"{path.parent.name}={path.stem}"
                said.append(f"plugin '{package}': {path} is not used, for {what} is {owner}'s. Rename it.")
    return said


def publish(arguments: Sequence[str] = ()) -> None:
    """Load plugins and make every registered component without a yaml known to Hydra.

    Its node holds the name and the defaults of its class. The yaml files of plugins are found by Hydra on
    its search path (``mannlab/_hydra``).

    Raises:
        ConfigError: a module that the user named cannot be imported.
    """
    registry.load_plugins(named_plugins(arguments))
    if not any(argument.lstrip("+").startswith("plugins=") for argument in arguments):
        registry.load_plugins(plugins_of_experiment(arguments))
    for said in hidden_yamls():
        warnings.warn(said, stacklevel=2)
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for kind, name in _published:
        store.repo.get(kind, {}).pop(f"{name}.yaml", None)
    _published.clear()
    folders = yaml_folders(arguments)
    for kind in registry.ROOMS:
        for name in registry.names(kind):
            # Hydra takes a node of the same name for a schema of the file, and warns.
            if not any((folder / kind / f"{name}.yaml").is_file() for folder in folders):
                cls = registry.get(kind, name)
                store.store(group=kind, name=name, node=node(name, cls), provider=cls.__module__)
                _published.append((kind, name))


def node(name: str, cls: type) -> dict[str, Any]:
    """What a component's yaml would say. Options without a default are ``???``, which must be given."""
    found: dict[str, Any] = {"name": name}
    for option in registry.options(cls).values():
        if option.required:
            found[option.name] = "???"
        elif _is_plain(option.default):
            found[option.name] = _listed(option.default)
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------------- names of folders


def stamp() -> str:
    """The time to the millisecond, so that runs of one second do not meet."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def label(task: Mapping[str, Any]) -> str:
    """The name of a task in run folders; imports the task."""
    name = task.get("name")
    if not isinstance(name, str):
        raise ConfigError("task.name: missing.", "Choose a task, such as task=copy.")
    given = registry.get("task", name).label(dict(task))  # type: ignore[attr-defined]
    return _safe(str(given)) or "task"


def folder(overrides: Sequence[str]) -> str:
    """A sweep job's folder: its overrides in characters that shells and Hydra leave alone, and their hash."""
    kept = [word for word in overrides if not re.match(r"\+*hydra[./]", word)]
    full = "_".join(_safe(_rounded(word.lstrip("+~"))) for word in kept) or "job"
    digest = hashlib.blake2b(" ".join(kept).encode(), digest_size=3).hexdigest()
    return f"{full[: LONGEST_FOLDER - 7].rstrip('-_.')}-{digest}"


def _rounded(word: str) -> str:
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", word)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")


def register_resolvers() -> None:
    """``mannlab.stamp``, ``mannlab.label`` and ``mannlab.folder``, for the names of folders."""
    from omegaconf import OmegaConf

    # Cached, like Hydra's own "now": a run has one folder however often it is asked for.
    OmegaConf.register_new_resolver("mannlab.stamp", stamp, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("mannlab.label", label, replace=True)
    OmegaConf.register_new_resolver("mannlab.folder", folder, replace=True)


# ---------------------------------------------------------------------- plain containers


def texts(node: Any) -> list[str]:
    """A list of texts as it was written: an override may hold an interpolation that is meant elsewhere."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(node, resolve=False)
    return [str(text) for text in found] if isinstance(found, list) else []


def plain(config: Any) -> dict[str, Any]:
    """A composed configuration as plain dictionaries and lists, interpolations resolved.

    Raises:
        ConfigError: a value is missing, or an interpolation leads nowhere.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

    try:
        found = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key or str(error)
        raise ConfigError(f"{key}: missing, and it has no default.", f"Give it: {key}=...") from error
    except InterpolationResolutionError as error:
        what = str(error).partition("\n")[0]
        raise ConfigError(f"{error.full_key}: {what}", "Give the key a value of its own.") from error
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}
