"""The cache folder, and arrays kept in it: safe with several processes, rebuilt when damaged."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mannlab.errors import DataError
from mannlab.files import replacing

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


def cache_folder() -> Path:
    """``$MANNLAB_CACHE``, else ``$XDG_CACHE_HOME/mannlab``, else ``~/.cache/mannlab`` (it may not exist)."""
    if own := os.environ.get("MANNLAB_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "mannlab"
    return Path("~/.cache/mannlab").expanduser()


def data_folders() -> list[Path]:
    """Where data may lie that nobody named a folder for: ``$MANNLAB_DATA``, if it is set, and the cache."""
    data = os.environ.get("MANNLAB_DATA")
    return [*([Path(data).expanduser()] if data else []), cache_folder()]


def offline() -> bool:
    """Whether ``$MANNLAB_OFFLINE`` forbids to use the network."""
    return os.environ.get("MANNLAB_OFFLINE") == "1"


def may_fetch(what: str, instead: str) -> None:
    """Raise DataError, saying what to do ``instead``, where ``$MANNLAB_OFFLINE`` forbids downloads."""
    if offline():
        raise DataError(f"{what} is not on this disk, and MANNLAB_OFFLINE=1 forbids fetching it.", instead)


def cached(name: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays kept under a name, built and kept if they are not there.

    The file appears whole or not at all, so processes may build the same one at the same time. One that
    cannot be read is built again; where the cache cannot be written, a warning says so and the arrays are
    only returned.

    Args:
        name: file name, without its ending; it changes whenever the content would.
        build: makes the arrays; plain types only.
    """
    path = cache_folder() / f"{name}.npz"
    if path.exists():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except Exception as error:
            # Whatever a damaged file makes zipfile or numpy raise, the answer is the same.
            log.warning("The cache file %s cannot be read (%s); it is made again.", path, error)
    arrays = build()
    try:
        keep(path, arrays)
    except OSError as error:
        log.warning(
            "Cannot write %s (%s), so this work is done again each time; MANNLAB_CACHE names another folder.",
            path,
            error,
        )
    return arrays


def keep(path: Path, arrays: Arrays) -> None:
    """Write arrays to a file that appears in one step.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        # Called for its keyword arguments: the names of the arrays are data.
        np.savez(file, **arrays)  # type: ignore[arg-type]


def fingerprint(*symbols: Sequence[str]) -> str:
    """A short name of lists of symbols: another if any has another number (``Task.fingerprint``)."""
    return hashlib.blake2b(json.dumps([list(known) for known in symbols]).encode(), digest_size=8).hexdigest()
