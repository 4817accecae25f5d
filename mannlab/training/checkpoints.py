"""Checkpoint files: written whole or not at all, read without running anything in them."""

from __future__ import annotations

import errno
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from mannlab import registry
from mannlab.contracts import Task
from mannlab.errors import CheckpointError, ConfigError, MannlabError
from mannlab.files import replacing
from mannlab.model import MANN
from mannlab.trees import flat

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
KINDS = ("best", "last")


class WriteError(MannlabError):
    """A file of the run cannot be written: the disk is full, or the folder is read-only."""


def replace_file(target: Path, write: Any, run: Path | None = None) -> None:
    """Call ``write(temporary path)``, then put the result in place of ``target`` in one move.

    Args:
        target: the file.
        write: makes it.
        run: the folder of the run that is stopped if this fails.

    Raises:
        WriteError: it failed; ``target`` is as it was.
    """
    try:
        with replacing(target) as temporary:
            write(temporary)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        hint = (
            f"{target} still holds what was saved before."
            if target.exists()
            else "Nothing was saved there yet."
        )
        if run is None:
            hint += " Make room there, or choose another place."
        else:
            more = to_resume(run)
            hint += " The run was stopped. Make room or give another output folder, then "
            hint += f"continue with {more}." if more else "start it again."
        raise WriteError(f"Cannot write {target.name} in {target.parent}: {error}", hint) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint, then swaps; a full disk leaves the old one whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        replace_file(path, lambda temporary: torch.save(checkpoint, temporary), path.parent.parent)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU; code in the file is refused, not run.

    Raises:
        CheckpointError: missing, truncated, refused, or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint at {path}.", "Give a run folder or a .ckpt file that exists."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it holds something other than tensors and plain values.",
            "It may be damaged, made by another program, or made to run code. "
            f"Do not load it. ({_short(error)})",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be read: it is damaged or cut short. ({_short(error)})",
            _instead(path),
        ) from error
    if not isinstance(found, dict) or "state_dict" not in found or "hyper_parameters" not in found:
        raise CheckpointError(
            f"{path} is not a checkpoint of mannlab.", "Give a run folder or a .ckpt file of a run."
        )
    return found


def _short(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _instead(path: Path) -> str:
    """What to do without a checkpoint: use the other one of the run, if there is one."""
    other = path.with_name("last.ckpt" if path.name == "best.ckpt" else "best.ckpt")
    if other.is_file():
        return f"Use another one from the same run, such as {other}."
    return "Give a checkpoint that is whole; for training, leave ckpt_path out to start from scratch."


def read_config(checkpoint: Path) -> dict[str, Any] | None:
    """The ``config.yaml`` of the run that a checkpoint lies in, or None."""
    path = checkpoint.parent.parent / "config.yaml"
    if not path.is_file():
        return None
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else None


def find_checkpoint(run: Path | str, which: str = "best") -> Path:
    """The checkpoint of a run folder, or the file itself when given one.

    Args:
        run: a run folder or a ``.ckpt`` file.
        which: ``"best"`` (``last`` if the run never validated) or ``"last"``.

    Raises:
        CheckpointError: there is none.
    """
    run = Path(run)
    if run.is_file():
        return run
    if which not in KINDS:
        raise CheckpointError(
            f"checkpoint '{which}': there is no such kind.", f"Choose one of: {', '.join(KINDS)}."
        )
    for name in (which, *KINDS):
        path = run / FOLDER / f"{name}.ckpt"
        if path.is_file():
            return path
    why = (
        "The folder does not exist."
        if not run.exists()
        else "The run may have stopped before its first validation."
    )
    raise CheckpointError(
        f"There is no checkpoint in {run / FOLDER}.", f"{why} Give another run folder or a .ckpt file."
    )


def resolve(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """The file that ``ckpt_path`` means.

    Args:
        ckpt_path: null; ``"last"`` (the newest last.ckpt among the folders beside this run's); a run
            folder; a file.
        run_dir: this run's folder.

    Raises:
        CheckpointError: it means nothing.
    """
    if not ckpt_path:
        return None
    if ckpt_path != "last":
        return find_checkpoint(Path(ckpt_path), "last").resolve()
    siblings = [
        path for path in run_dir.parent.glob(f"*/{FOLDER}/last.ckpt") if path.parent.parent != run_dir
    ]
    if not siblings:
        raise CheckpointError(
            f"ckpt_path=last: no earlier run in {run_dir.parent} has a checkpoint.",
            "Give ckpt_path= a run folder or a .ckpt file, or leave it out to start from scratch.",
        )
    return max(siblings, key=lambda path: path.stat().st_mtime)


def of_run(checkpoint: Path | str, run_dir: Path | str) -> bool:
    """Whether a checkpoint lies in a run's own folder."""
    return Path(checkpoint).resolve().parent.parent == Path(run_dir).resolve()


def check_left(path: Path, step: int, max_steps: int, run_dir: Path) -> None:
    """Refuse to take up, in another folder, a run that has made its steps (``max_steps`` -1: any number).

    Raises:
        CheckpointError: nothing is left to train.
    """
    if 0 <= max_steps <= step and not of_run(path, run_dir):
        raise CheckpointError(
            f"{path} is at step {step}, and trainer.max_steps={max_steps}: nothing is left to train.",
            "To train on, give a larger trainer.max_steps. "
            f"To test it again: mannlab eval {path.parent.parent}",
        )


def to_resume(run_dir: Path) -> str | None:
    """What to add to a command to go on from a run, as the shell takes it; None without a checkpoint."""
    if not (run_dir / FOLDER / "last.ckpt").is_file():
        return None
    plain = re.fullmatch(r"[\w./:@%+-]+", str(run_dir))
    return f"ckpt_path={run_dir}" if plain else f"'ckpt_path=\"{run_dir}\"'"


IDENTITY = ("controller", "memory", "task", "model")

# How the same numbers are made is no part of what they are.
_MEANS = ("model.backend", "model.checkpoint_every")
_CURRICULUM = re.compile(r"task\.curriculum(\.|$)")


def check_same(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, groups: tuple[str, ...]
) -> dict[str, tuple[str, str]]:
    """Refuse to resume what is another experiment; what is tested at its end may be another.

    Returns:
        What is another and may be: how much its memory holds (see ``Memory.resizable``), where weights may
        not fit, and the sizes that it trains on next (``task.curriculum``).

    Raises:
        CheckpointError: other keys of ``groups`` differ; the message names them with both values.
    """
    changes = differences(saved, wanted, groups)
    free = _declared("memory", "resizable", wanted)
    allowed = {key: changes.pop(key) for key in list(changes) if key in free or _CURRICULUM.match(key)}
    if changes:
        raise CheckpointError(
            f"{path} is of another configuration:\n{_lines(changes)}",
            "Set these keys as in the checkpoint, or leave ckpt_path out to start from scratch.",
        )
    return allowed


def differences(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], groups: tuple[str, ...]
) -> dict[str, tuple[str, str]]:
    """Each option of ``groups`` that is another in a checkpoint, with both, but those that train nothing.

    What one of them does not set has its default there: options come to exist, and checkpoints stay.
    """
    old = flat({group: _with_defaults(group, saved) for group in groups})
    new = flat({group: _with_defaults(group, wanted) for group in groups})
    missing = object()
    return {
        key: (_say(old, key), _say(new, key))
        for key in sorted((old.keys() | new.keys()) - set(_MEANS) - _declared("task", "tested", wanted))
        if old.get(key, missing) != new.get(key, missing)
    }


def _lines(changes: Mapping[str, tuple[str, str]]) -> str:
    return "\n".join(f"  {key}: {old} in the checkpoint, {new} here" for key, (old, new) in changes.items())


def _component(group: str, config: Mapping[str, Any]) -> type | None:
    """The class whose options a group sets, or None if nothing here has its name."""
    if group == "model":
        return MANN
    try:
        return registry.get(group, (config.get(group) or {})["name"])
    except (ConfigError, KeyError):
        return None


def _with_defaults(group: str, config: Mapping[str, Any]) -> dict[str, Any]:
    cls = _component(group, config)
    return {**(registry.defaults(cls) if cls else {}), **(config.get(group) or {})}


def _declared(group: str, attribute: str, config: Mapping[str, Any]) -> frozenset[str]:
    """The options of a configuration's task or memory that its class names in an attribute, in full."""
    names: frozenset[str] = getattr(_component(group, config), attribute, frozenset())
    return frozenset(f"{group}.{name}" for name in names)


def _say(tree: Mapping[str, Any], key: str) -> str:
    return repr(tree[key]) if key in tree else "(not set)"


def load_weights(
    model: torch.nn.Module,
    checkpoint: Mapping[str, Any],
    path: Path,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Put a checkpoint's weights into a model, every one of them; see :func:`check_weights`."""
    model.load_state_dict(check_weights(model, checkpoint, path, config))


def check_weights(
    model: torch.nn.Module,
    checkpoint: Mapping[str, Any],
    path: Path,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The weights that a checkpoint has for a model, which they fit.

    Args:
        model: built by ``config``.
        checkpoint: what :func:`read_checkpoint` gave.
        path: where it lies.
        config: to name the options that differ from the checkpoint's.

    Raises:
        CheckpointError: names or shapes differ; the message lists the options that may be why, else these.
    """
    prefix = "model."
    weights = {
        key[len(prefix) :]: value for key, value in checkpoint["state_dict"].items() if key.startswith(prefix)
    }
    own = model.state_dict()
    lines = [
        f"  {key}: {_shape(weights, key)} in the checkpoint, {_shape(own, key)} in this configuration"
        for key in sorted(weights.keys() | own.keys())
        if key not in weights or key not in own or weights[key].shape != own[key].shape
    ]
    changed = differences(checkpoint["hyper_parameters"], config, IDENTITY) if lines and config else {}
    if changed:
        raise CheckpointError(
            f"{path} was trained with other options, and its weights do not fit:\n{_lines(changed)}",
            "Leave alone what weights depend on: sizes of the memory, the controller and the task's symbols.",
        )
    if lines:
        more = f"\n  ... and {len(lines) - 12} more" if len(lines) > 12 else ""
        raise CheckpointError(
            f"{path} does not fit this model:\n" + "\n".join(lines[:12]) + more,
            "Build it with the options that the run was trained with (its config.yaml).",
        )
    return weights


def check_data(checkpoint: Mapping[str, Any], task: Task, path: Path) -> None:
    """Raise CheckpointError if a task's symbols mean something else than when the checkpoint was made."""
    before = checkpoint.get("fingerprint")
    if before is not None and before != task.fingerprint:
        raise CheckpointError(
            f"{path} was trained with another vocabulary: the data of the task has changed since.",
            "Give the data and the options that the run was trained with.",
        )


def _shape(weights: Mapping[str, Any], key: str) -> str:
    return str(list(weights[key].shape)) if key in weights else "missing"
