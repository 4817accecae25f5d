"""The bAbI question-answering tasks 1.2 (Weston et al. 2015, arXiv 1502.05698): files and their format."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from mannlab.datasets.cache import cache_folder, may_fetch
from mannlab.errors import DataError
from mannlab.progress import counting

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
SIZES = {"1k": "en", "10k": "en-10k"}
RELEASE = "tasks_1-20_v1-2"
FOLDERS = ("", "babi", RELEASE, f"babi/{RELEASE}")
URLS = (
    f"http://www.thespermwhale.com/jaseweston/babi/{RELEASE}.tar.gz",
    f"https://s3.amazonaws.com/text-datasets/babi_{RELEASE}.tar.gz",
)
TIMEOUT = 5.0  # seconds that a server may be silent
MEND = f"Get {RELEASE}.tar.gz again, or put en/ and en-10k/ of it there."
FILE = re.compile(r"qa(\d+)_.+_(train|test)\.txt")
WORD = re.compile(r"[\w'-]+")
# Git's names for the content of the release's files (SHA-1, 20 digits): 1k train, 10k train, test.
CONTENT = {
    1: ("f5349003d2946b396d7a", "6bfc85482947215cd31b", "8f9586848f7b0afdccb2"),
    2: ("94a13ad55f6d959e8c2d", "2aa5ecf822285157d9f7", "6deccd0cf07947ff5258"),
    3: ("a21a4e99429de5cccdca", "9b2b35ca4357ea8ee446", "b7c8e4483963c55a6170"),
    4: ("e0726ef1df8f6e3f67eb", "02fb57b654192ee726ba", "800d7ea7cd1e432c8a61"),
    5: ("ddfcb940b0c0f57ff6b1", "424ec34bdc7bb4a8679f", "ed9758be5dff62875321"),
    6: ("b041073ab4bcc6417b03", "57deb7ad6efaac9f3c08", "da25e9fd5bb7d69c7150"),
    7: ("6bb22084f6f832a7e31a", "c2112050f918229878d3", "970737f3bff6896c73e0"),
    8: ("7a10babd4255cbb5f93f", "ed8d5856164d2fd23245", "322949b2623507662161"),
    9: ("65167df36eb55b4dda5c", "8449206274de8befc566", "a78006357cd34214a78e"),
    10: ("0f89cbea0ab5f36cb705", "b278e8534a1b44af49e2", "f6a84c1e52223c6edca5"),
    11: ("06d65da75ffef42b6628", "ff530d4de05dc753a0fe", "c9feb150855483c587c5"),
    12: ("122fdc28e192ca0eea09", "eed62eb333e67c508928", "f1d9b7fb0e2d39af3b91"),
    13: ("c973ae368c84879b4f0a", "a0540e23a7762254fffe", "f42e5b137c2cd1c40511"),
    14: ("4e65c0b7597cd4441e1b", "35350c2fbfcc08121873", "c0c88cd92b690d6c533c"),
    15: ("262658e38742fba2895b", "452c1697ec6282c5af36", "a22e0cd20d0fb602ed83"),
    16: ("fa3b3bdfef74d6804819", "558683aafde405dc1a26", "5b1e89531673a0512cbf"),
    17: ("ba6f38d480d5c9f7954f", "a0f420d46b144cca626e", "91c50c4b126f0f7653d6"),
    18: ("9996dd7ddae12216ef75", "8ca079cc3d5ec6d66951", "41ecb574f0d4934603d9"),
    19: ("25e7936d7c0603554d47", "c9ec29b500eaf11f977d", "fe316702f1bd930bf172"),
    20: ("0a526fdc6bc7be7cc62b", "7406f24b144a1e57006e", "1f4c6ea45f022158f5e0"),
}

Files = dict[tuple[int, str], tuple[str, bytes]]  # by task and split: a name for messages, and the content


class Line(NamedTuple):
    """One line of a story: its words in lower case, and the answer if it is a question."""

    words: tuple[str, ...]
    answer: str | None


Story = list[Line]


@dataclass
class Read:
    """Stories of one or more files.

    Attributes:
        stories: in order.
        skipped_lines: how many lines could not be understood.
        skipped_stories: how many stories were left out for it.
    """

    stories: list[Story] = field(default_factory=list)
    skipped_lines: int = 0
    skipped_stories: int = 0


# ---------------------------------------------------------------------- files


def find(root: Path) -> Path | None:
    """The folder in ``root`` (see ``FOLDERS``) that holds bAbI of either size, if any."""
    return next((root / folder for folder in FOLDERS if _sources(root / folder, SIZES.values())), None)


def _sources(folder: Path, inner: Collection[str]) -> list[Path]:
    """Folders and archives of these names, and the archive of the whole release."""
    trees = [folder / name for name in inner if (folder / name).is_dir()]
    archives = [folder / f"{name}.tar.gz" for name in (*inner, RELEASE)]
    return [*trees, *(path for path in archives if path.is_file())]


def files(folder: Path, size: str, tasks: Collection[int]) -> Files:
    """The content of the files of some tasks.

    Args:
        folder: from :func:`find`.
        size: ``"1k"`` or ``"10k"``.
        tasks: numbers, 1 to 20.

    Raises:
        DataError: a file is missing, or an archive is damaged; names it.
    """
    name = SIZES[size]
    sources = _sources(folder, [name])
    if not sources:
        raise DataError(
            f"bAbI in {folder} has no {name} (task.size={size}).",
            f"Put {name}/ or {name}.tar.gz there, or use the other task.size.",
        )
    source = sources[0]
    found = _tree(source, tasks) if source.is_dir() else _archive(source, name, tasks)
    for task in tasks:
        for split in ("train", "test"):
            if (task, split) not in found:
                raise DataError(f"{source} has no file qa{task}_..._{split}.txt.", MEND)
    return found


def _tree(folder: Path, tasks: Collection[int]) -> Files:
    found: Files = {}
    for path in sorted(folder.glob("qa*.txt")):
        if (match := FILE.fullmatch(path.name)) and int(match[1]) in tasks:
            try:
                found[int(match[1]), match[2]] = (str(path), path.read_bytes())
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error}", "Check its permissions.") from error
    return found


def _archive(archive: Path, folder: str, tasks: Collection[int]) -> Files:
    found: Files = {}
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                path = PurePosixPath(member.name)
                match = FILE.fullmatch(path.name)
                if match is None or path.parent.name != folder or int(match[1]) not in tasks:
                    continue
                content = opened.extractfile(member)
                if content is not None:
                    found[int(match[1]), match[2]] = (f"{archive}: {path.name}", content.read())
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is damaged or cut short: {error}", MEND) from error
    return found


def altered(found: Files, size: str) -> list[str]:
    """Names of the files whose content is not that of the release."""
    column = list(SIZES).index(size)
    return [
        f"qa{task}_{split}"
        for (task, split), (_, content) in sorted(found.items())
        if not _git_name(content).startswith(CONTENT[task][2 if split == "test" else column])
    ]


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


# ---------------------------------------------------------------------- format


def parse(content: bytes, name: str, on_error: OnError = "raise") -> Read:
    """The stories of a file: ``ID text``, or ``ID question<TAB>answer<TAB>IDs of supporting facts``.

    An ID of 1 begins a story, and each line's is one more than that of the line before.

    Args:
        content: of the file.
        name: for messages.
        on_error: what to do about a line that is not so: raise, or skip its story and count.

    Raises:
        DataError: naming file and line.
    """
    read = Read()
    story: Story = []
    last, bad = 0, False

    def close() -> None:
        if bad:
            read.skipped_stories += 1
        elif story:
            read.stories.append(story)

    for number, raw in enumerate(content.splitlines(), start=1):
        if not raw.strip():
            continue
        # Before the line is understood: if it is malformed, the story before it is still good.
        if raw.partition(b" ")[0] == b"1":
            close()
            story, last, bad = [], 0, False
        identity = last + 1
        try:
            identity, line = _line(raw)
            _check(identity == last + 1, f"its number is {identity}, not {last + 1}")
            story.append(line)
        except _Malformed as error:
            if on_error == "raise":
                raise DataError(
                    f"{name}, line {number} is malformed: {error}.",
                    "Mend it, or leave its story out with task.on_error=skip, which counts what is left out.",
                ) from error
            read.skipped_lines += 1
            bad = True
        last = identity
    close()
    return read


class _Malformed(Exception):
    """A line that is not as it should be."""


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise _Malformed(what)


def _line(raw: bytes) -> tuple[int, Line]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Malformed("it is not text in UTF-8") from error
    number, _, rest = text.partition(" ")
    _check(number.isascii() and number.isdigit(), "it does not begin with a number")
    body, *more = rest.split("\t")
    words = tuple(WORD.findall(body.lower()))
    _check(bool(words), "it has no words")
    if not more:
        return int(number), Line(words, None)
    _check(len(more) == 2, "a question has an answer and the numbers of its facts, each after a tab")
    answer = more[0].strip().lower()
    _check(bool(answer), "the answer is missing")
    facts = more[1].split()
    known = all(fact.isdigit() and 0 < int(fact) < int(number) for fact in facts)
    _check(bool(facts) and known, f"its facts are '{more[1].strip()}', not earlier lines")
    return int(number), Line(words, answer)


# ---------------------------------------------------------------------- download


def download() -> Path:
    """Fetch the release into the cache folder; the content of every file is checked.

    Returns:
        The folder, as :func:`files` wants it.

    Raises:
        DataError: no connection, other content, or a cache folder that cannot be written.
    """
    mend = (
        f"Set task.root or MANNLAB_DATA to a folder that holds {RELEASE}.tar.gz (or en/ and en-10k/ of it), "
        "or use task.source=generated."
    )
    may_fetch("bAbI", mend)
    target = cache_folder() / "babi"
    trouble: Mapping[str, str] = {}
    for url in URLS:
        log.info("Fetching bAbI (15 MB) from %s into %s.", url, target)
        try:
            target.mkdir(parents=True, exist_ok=True)
            # Moved into place when it is whole and checked.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".babi-") as folder:
                archive = Path(folder) / f"{RELEASE}.tar.gz"
                with urllib.request.urlopen(url, timeout=TIMEOUT) as reply, archive.open("wb") as file:
                    size = int(reply.headers.get("Content-Length") or 0) or None
                    with counting("Fetching bAbI", size, "bytes") as advance:
                        while part := reply.read(1 << 16):
                            file.write(part)
                            advance(len(part))
                _verify(archive)
                os.replace(archive, target / archive.name)
            return target
        except (OSError, HTTPException, DataError) as error:
            trouble = {**trouble, url: error.what if isinstance(error, DataError) else str(error)}
    reasons = "; ".join(f"{url}: {why}" for url, why in trouble.items())
    raise DataError(f"bAbI could not be fetched: {reasons}", mend)


def _verify(archive: Path) -> None:
    for size, folder in SIZES.items():
        found = _archive(archive, folder, CONTENT)
        if len(found) < 2 * len(CONTENT) or (wrong := altered(found, size)):
            which = "files are missing" if len(found) < 2 * len(CONTENT) else f"not the release: {wrong[0]}"
            raise DataError(f"wrong checksum in {folder}: {which}")
