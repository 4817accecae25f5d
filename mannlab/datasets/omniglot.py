"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015)."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mannlab.datasets.cache import cache_folder, cached, may_fetch
from mannlab.datasets.drawings import DRAWINGS, Drawings
from mannlab.errors import DataError
from mannlab.progress import progress

log = logging.getLogger(__name__)

BACKGROUND, EVALUATION = "images_background", "images_evaluation"
CHARACTERS = {BACKGROUND: 964, EVALUATION: 659}
FOLDERS = ("", "omniglot", "omniglot-py")
TIMEOUT = 5.0  # seconds that a server may be silent
VERSION = 1  # of the cached drawings
MEND = "Get it again from https://github.com/brendenlake/omniglot (folder python/); in the cache, delete it."

Files = dict[str, bytes]  # the drawings of one part: "alphabet/character/drawing.png" to its bytes


def find(root: Path) -> Path | None:
    """The folder in ``root`` (itself, omniglot/ or omniglot-py/) that holds some of Omniglot, if any."""
    for folder in FOLDERS:
        if any(_sources(root / folder, part) for part in CHARACTERS):
            return root / folder
    return None


def complete(folder: Path) -> bool:
    """Whether both parts lie in ``folder``, in whatever state."""
    return all(_sources(folder, part) for part in CHARACTERS)


def _sources(folder: Path, part: str) -> list[Path]:
    tree, archive = folder / part, folder / f"{part}.zip"
    return [path for path, there in ((tree, tree.is_dir()), (archive, archive.is_file())) if there]


def load(folder: Path, side: int) -> Drawings:
    """Read Omniglot, at first from its files and later from the cache.

    Args:
        folder: where images_background and images_evaluation lie, as folders or as zip files.
        side: height and width to bring the drawings to (from 105), pixels.

    Raises:
        DataError: a part is missing, cut short or incomplete; the message names the file.
    """
    stamp = hashlib.blake2b(digest_size=8)
    for part in CHARACTERS:
        for path in _sources(folder, part):
            stamp.update(f"{path.resolve()}|{path.stat().st_mtime_ns}|{path.stat().st_size}|".encode())
    name = f"omniglot-v{VERSION}-{side}-{stamp.hexdigest()}"
    return Drawings.of(cached(name, lambda: read(folder, side).arrays()))


def read(folder: Path, side: int) -> Drawings:
    """Read Omniglot from its files; see :func:`load`."""
    drawings: dict[str, tuple[list[bytes], bool]] = {}
    for part in CHARACTERS:
        for name, pictures in read_part(folder, part).items():
            drawings[name] = (pictures, part == EVALUATION)
    names = sorted(drawings)
    images = np.empty((len(names), DRAWINGS, side, side), np.uint8)
    for index in progress(range(len(names)), f"Reading Omniglot from {folder}", "characters"):
        for drawing, data in enumerate(drawings[names[index]][0]):
            try:
                images[index, drawing] = decode(data, side)
            except (OSError, SyntaxError, ValueError) as error:
                what = f"{folder}: drawing {drawing + 1} of {names[index]} cannot be read: {error}"
                raise DataError(what, MEND) from error
    return Drawings(images, names, np.array([drawings[name][1] for name in names]))


def decode(data: bytes, side: int) -> NDArray[np.uint8]:
    """A PNG of black ink on white as ``uint8[side, side]``, 255 where there is ink."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("L").resize((side, side), Image.Resampling.BILINEAR)  # low-passes first
    return 255 - np.asarray(small, np.uint8)


def read_part(folder: Path, part: str) -> dict[str, list[bytes]]:
    """One part's characters (``alphabet/character``), each with its 20 drawings, in order.

    A folder and a zip file may lie side by side; the first that is complete serves.

    Raises:
        DataError: neither is.
    """
    sources = _sources(folder, part)
    trouble = DataError(
        f"Omniglot in {folder} lacks its part {part}.",
        f"Put {part}/ or {part}.zip beside the other part. {MEND}",
    )
    for source in sources:
        try:
            files = _from_zip(source) if source.suffix == ".zip" else _from_tree(source)
            return _grouped(files, source, part)
        except DataError as error:
            trouble = error
    raise trouble


def _from_tree(tree: Path) -> Files:
    try:
        return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.glob("*/*/*.png")}
    except OSError as error:
        raise DataError(f"{tree} cannot be read: {error}", "Check its permissions.") from error


def _from_zip(archive: Path) -> Files:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if name.endswith(".png") and "__MACOSX" not in name]
            return {"/".join(PurePosixPath(name).parts[-3:]): opened.read(name) for name in members}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, ValueError) as error:
        raise DataError(f"{archive} is damaged or cut short: {error}", MEND) from error
    except Exception as error:  # zlib.error and NotImplementedError: bytes changed inside
        raise DataError(f"{archive} is damaged: {error}", MEND) from error


def _grouped(files: Mapping[str, bytes], source: Path, part: str) -> dict[str, list[bytes]]:
    characters: dict[str, list[bytes]] = {}
    for path in sorted(files):
        characters.setdefault(path.rpartition("/")[0], []).append(files[path])
    expected = CHARACTERS[part]
    if len(characters) != expected:
        raise DataError(f"{source} holds {len(characters)} characters, not {expected}.", MEND)
    for name, drawings in characters.items():
        if len(drawings) != DRAWINGS:
            raise DataError(f"{source} holds {len(drawings)} drawings of {name}, not {DRAWINGS}.", MEND)
    return characters


def download() -> Path:
    """Fetch Omniglot into the cache folder with torchvision, which checks its checksums.

    Returns:
        The folder, as :func:`load` wants it.

    Raises:
        DataError: no connection, a wrong checksum, or a cache folder that cannot be written.
    """
    may_fetch(
        "Omniglot",
        "Set task.root or MANNLAB_DATA to the folder that holds it, or choose task.source=glyphs.",
    )
    from torchvision.datasets import Omniglot

    target = cache_folder() / "omniglot"
    log.info("Fetching Omniglot (14 MB) into %s.", target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # A folder of our own, and the archives moved at the end: a killed download leaves no half.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".omniglot-") as folder, _impatient():
            for part in CHARACTERS:
                Omniglot(folder, background=part == BACKGROUND, download=True)
            for part in CHARACTERS:
                os.replace(Path(folder) / Omniglot.folder / f"{part}.zip", target / f"{part}.zip")
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"Omniglot could not be fetched from {Omniglot.download_url_prefix}: {error}",
            "Set task.root or MANNLAB_DATA to a folder that holds images_background.zip and "
            "images_evaluation.zip, or choose task.source=glyphs, which needs no download.",
        ) from error
    return target


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
