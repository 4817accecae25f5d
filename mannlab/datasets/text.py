"""Running text as numbers: where it comes from, and how it is cut into tokens."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mannlab.datasets.bpe import train_pairs
from mannlab.datasets.cache import Arrays, cached, data_folders, fingerprint
from mannlab.datasets.parallel import read_raw
from mannlab.errors import ConfigError, DataError
from mannlab.progress import waiting

log = logging.getLogger(__name__)

Level = Literal["word", "bpe", "byte"]
Source = Literal["auto", "wikitext-2", "pydoc", "files"]
SPLITS = ("train", "val", "test")
VERSION = 4  # of what is kept in the cache
WIKITEXT = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
# Shares of a text that is not divided yet, in order, so that no part continues into one before it.
VAL_SHARE = TEST_SHARE = 0.05
TOKEN = re.compile(r"\n|<unk>|\w+|[^\w\s]")
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Corpus:
    """A text as token numbers.

    Attributes:
        source: where the text comes from.
        tokens: by split, ``int32[tokens]``.
        words: by split, how many words that is, the end of a line counted as one.
        vocabulary: how many numbers there are.
        fingerprint: of the vocabulary; models with another one do not fit. None for bytes.
        symbols: what each number stands for; empty for bytes.
    """

    source: str
    tokens: dict[str, NDArray[np.int32]]
    words: dict[str, int]
    vocabulary: int
    fingerprint: str | None
    symbols: Sequence[str] = ()


def where(source: Source, root: str | None) -> tuple[str, Path | None]:
    """The source that is meant, and its folder.

    Raises:
        ConfigError: ``root`` does not exist.
        DataError: WikiText-2 was asked for and is not there.
    """
    if source in ("pydoc", "files"):
        return source, None
    folders = [Path(root).expanduser()] if root else []
    if root and not folders[0].is_dir():
        raise ConfigError(
            f"task.root: there is no folder {folders[0]}.",
            "Name the folder that holds train.txt, valid.txt and test.txt (they may end in .gz).",
        )
    if not root:
        folders = data_folders()
    for folder in [place for base in folders for place in (base, base / "wikitext-2")]:
        if all(_file(folder, name) for name in WIKITEXT.values()):
            return "wikitext-2", folder
    if source == "wikitext-2" or root:
        raise DataError(
            "WikiText-2 is not there.",
            f"Put its train.txt, valid.txt and test.txt (word level; .gz is fine) into "
            f"{folders[-1] / 'wikitext-2'}, name their folder in task.root, or use task.source=pydoc.",
        )
    return "pydoc", None


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read(source: Source, root: str | None, files: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Where the text comes from, and the text of each split.

    Raises:
        ConfigError: files that are not there, or none named.
        DataError: a file that cannot be read.
    """
    name, folder = where(source, root)
    if name == "files":
        return name, _divide("\n".join(_files(files)))
    if folder is None:
        from pydoc_data.topics import topics

        log.info("Text: Python's own documentation (task.source=%s).", source)
        return name, _divide("\n".join(topics[key] for key in sorted(topics)))
    log.info("Text: WikiText-2 in %s.", folder)
    return name, {split: _read(_file(folder, file) or folder / file) for split, file in WIKITEXT.items()}


def _files(patterns: Sequence[str]) -> list[str]:
    if not patterns:
        raise ConfigError("task.files: none is named.", "Give a list: task.files=[book.txt,more.txt.gz]")
    missing = [name for name in patterns if not Path(name).expanduser().is_file()]
    if missing:
        raise ConfigError(f"task.files: there is no file {missing[0]}.", "Paths start where the run starts.")
    return [_read(Path(name).expanduser()) for name in patterns]


def _read(path: Path) -> str:
    try:
        return read_raw(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} cannot be read: {error}", "It must be text in UTF-8, or that in .gz."
        ) from error


def _divide(text: str) -> dict[str, str]:
    val, test = (int(len(text) * share) for share in (1 - VAL_SHARE - TEST_SHARE, 1 - TEST_SHARE))
    return {"train": text[:val], "val": text[val:test], "test": text[test:]}


def corpus(
    source: Source, level: Level, vocabulary: int | None, root: str | None, files: Sequence[str]
) -> Corpus:
    """A text in tokens; kept in the cache, by content.

    Args:
        source: see ``language_modelling``.
        level: ``word``, ``bpe`` (byte-pair encoding learnt on the training part) or ``byte``.
        vocabulary: most tokens; None: all words, 4,096 pairs.
        root: folder of WikiText-2.
        files: for ``source="files"``.

    Raises:
        ConfigError: wrong options, or ``tokenizers`` is not installed.
        DataError: text that is not there or cannot be read.
    """
    name, texts = read(source, root, files)
    content = hashlib.blake2b("\0".join(texts.values()).encode(), digest_size=10).hexdigest()
    # WikiText-2 has a space between any two words, and its vocabulary is of those.
    cut = "divided" if level == "word" and name == "wikitext-2" else level
    make = {"word": _words, "divided": _divided, "bpe": _pairs, "byte": _bytes}[cut]

    def build() -> Arrays:
        with waiting(f"Cutting {sum(map(len, texts.values())):,} characters of text into tokens ({level})"):
            return make(texts, vocabulary)

    kept = cached(f"text-{content}-{cut}-{vocabulary or 0}-{VERSION}", build)
    words = {split: max(1, len(text.split()) + text.count("\n")) for split, text in texts.items()}
    tokens = {split: kept[split] for split in SPLITS}
    symbols = kept["symbols"].tobytes().decode().split("\0") if "symbols" in kept else ()
    mark = str(kept.get("fingerprint", "")) or None
    return Corpus(name, tokens, words, int(kept["vocabulary"]), mark, symbols)


def _words(texts: dict[str, str], vocabulary: int | None) -> Arrays:
    return _known({split: TOKEN.findall(text) for split, text in texts.items()}, vocabulary)


def _divided(texts: dict[str, str], vocabulary: int | None) -> Arrays:
    parts = {
        split: [word for line in text.splitlines() for word in (*line.split(), "\n")]
        for split, text in texts.items()
    }
    return _known(parts, vocabulary)


def _known(parts: dict[str, list[str]], vocabulary: int | None) -> Arrays:
    counts = Counter(parts["train"])
    counts[UNKNOWN] = max(counts.values(), default=0) + 1  # always there, whatever the limit
    known = [word for word, _ in counts.most_common(vocabulary)]
    number = {word: i for i, word in enumerate(known)}
    tokens: Arrays = {
        split: np.array([number.get(word, number[UNKNOWN]) for word in words], np.int32)
        for split, words in parts.items()
    }
    return _numbered(tokens, known)


def _pairs(texts: dict[str, str], vocabulary: int | None) -> Arrays:
    lines = texts["train"].splitlines(True)
    tokenizer = train_pairs(lines, vocabulary or 4096, "task.level: bpe", ", or use task.level=word or byte")
    tokens: Arrays = {}
    numbers = tokenizer.get_vocab()
    for split, text in texts.items():
        encoded = tokenizer.encode_batch(text.splitlines(True))
        tokens[split] = np.array([number for line in encoded for number in line.ids], np.int32)
    return _numbered(tokens, sorted(numbers, key=numbers.__getitem__))


def _numbered(tokens: Arrays, known: Sequence[str]) -> Arrays:
    """Tokens with the size and the fingerprint of their vocabulary."""
    return {
        **tokens,
        "vocabulary": np.array(len(known), np.int32),
        "fingerprint": np.array(fingerprint(known)),
        # Not an array of texts, in which each takes as much room as the longest.
        "symbols": np.frombuffer("\0".join(known).encode(), np.uint8),
    }


def _bytes(texts: dict[str, str], vocabulary: int | None) -> Arrays:
    tokens = {split: np.frombuffer(text.encode(), np.uint8).astype(np.int32) for split, text in texts.items()}
    return {**tokens, "vocabulary": np.array(256, np.int32)}
