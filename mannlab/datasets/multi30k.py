"""Multi30k: 31,014 English descriptions of pictures with German translations (Elliott et al. 2016)."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import tempfile
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path

from mannlab.datasets.cache import cache_folder, may_fetch
from mannlab.errors import DataError
from mannlab.progress import progress

log = logging.getLogger(__name__)

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
LANGUAGES = ("en", "de")
TIMEOUT = 10.0  # seconds that a server may be silent
# Of the text, not of the .gz around it.
SHA256 = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
}


def find(root: Path) -> Path | None:
    """The folder in ``root`` (itself or multi30k/) that holds the training part in both languages, if any."""
    for folder in (root, root / "multi30k"):
        if all(file(folder, "train", language) for language in LANGUAGES):
            return folder
    return None


def file(folder: Path, part: str, language: str) -> Path | None:
    """A part in a language, plain or in .gz; None if it is not there."""
    name = f"{FILES[part]}.{language}"
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def download() -> Path:
    """Fetch all parts into the cache folder, and compare their checksums.

    Returns:
        The folder.

    Raises:
        DataError: no connection, a wrong checksum, or a cache folder that cannot be written.
    """
    may_fetch(
        "Multi30k",
        "Set task.root or MANNLAB_DATA to the folder that holds it, or choose task.source=numbers.",
    )
    target = cache_folder() / "multi30k"
    log.info("Fetching Multi30k (2 MB) into %s.", target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # A folder of our own, and the files moved at the end: a killed download leaves no half.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".multi30k-") as folder:
            for name in progress(list(SHA256), "Fetching Multi30k", "files"):
                (Path(folder) / f"{name}.gz").write_bytes(_fetch(name))
            for name in SHA256:
                os.replace(Path(folder) / f"{name}.gz", target / f"{name}.gz")
    except (OSError, EOFError, zlib.error, HTTPException) as error:
        raise DataError(
            f"Multi30k could not be fetched from {URL}: {error}",
            "Set task.root or MANNLAB_DATA to a folder that holds train.en.gz, train.de.gz and the others, "
            "or choose task.source=numbers, which needs no download.",
        ) from error
    return target


def _fetch(name: str) -> bytes:
    with urllib.request.urlopen(f"{URL}/{name}.gz", timeout=TIMEOUT) as answer:
        data: bytes = answer.read()
    found = hashlib.sha256(gzip.decompress(data)).hexdigest()
    if found != SHA256[name]:
        raise OSError(f"{name}.gz has another checksum than it should ({found[:12]}…)")
    return data
