"""Parallel text as numbers: where it comes from, and one vocabulary of byte pairs for both languages."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mannlab.datasets import multi30k
from mannlab.datasets.bpe import ALPHABET, restore, train_pairs
from mannlab.datasets.cache import Arrays, cached, data_folders
from mannlab.datasets.number_words import number_pairs
from mannlab.datasets.parallel import SPLITS, Faults, OnError, Pairs, divide, read_pairs
from mannlab.errors import ConfigError, DataError, require
from mannlab.progress import progress, waiting

log = logging.getLogger(__name__)

Source = Literal["auto", "numbers", "multi30k", "tatoeba", "files"]
Named = Mapping[str, Sequence[str]]
VERSION = 2  # of what is kept in the cache
VOCABULARY = {"numbers": 320}  # tokens; 10,000 for the rest
TATOEBA = ("deu-eng.tsv.gz", "deu-eng.tsv", "deu.txt")
TATOEBA_HINT = (
    "Get deu-eng.zip from https://www.manythings.org/anki (its content grows, so it is not fetched without "
    "being asked), put deu.txt of it into {folder}, or choose task.source=numbers, which needs no download."
)


@dataclass(frozen=True)
class Sentences:
    """Many sentences in tokens.

    Attributes:
        tokens: all of them, one after the other, ``int32``.
        ends: where each sentence ends, after a zero, ``int64[sentences + 1]``.
    """

    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.tokens[self.ends[index] : self.ends[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence."""
        return np.diff(self.ends)


class Vocabulary:
    """Byte pairs of both languages, and two marks.

    Attributes:
        separator: the token between source and target.
        end: the token after the last one of the target.
        size: how many tokens there are, marks included.
    """

    def __init__(self, description: str) -> None:
        self._tokenizer = restore(description, "task.vocabulary")
        self.separator = self._tokenizer.get_vocab_size()
        self.end = self.separator + 1
        self.size = self.separator + 2

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text; every text has some, and :meth:`decode` gives it back."""
        return [found.ids for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens. Marks have none; bytes that make no character become U+FFFD."""
        text: str = self._tokenizer.decode([int(token) for token in tokens if token < self.separator])
        return text

    def name(self, token: int) -> str:
        """A token as people can read it."""
        marks = {self.separator: "→", self.end: "■"}
        return marks.get(token) or self.decode([token]).replace(" ", "␣")


@dataclass(frozen=True)
class ParallelText:
    """Pairs of sentences in tokens.

    Attributes:
        source: where they come from.
        sources, targets: by split, aligned.
        vocabulary: of both.
        skipped: by kind of fault, how many pairs were left out.
        fingerprint: of the vocabulary; models with another one do not fit.
    """

    source: str
    sources: dict[str, Sentences]
    targets: dict[str, Sentences]
    vocabulary: Vocabulary
    skipped: dict[str, int]
    fingerprint: str


def named_source(source: Source, files: Named) -> str:
    """The source that is meant: with ``auto``, files if there are any, else numbers."""
    return source if source != "auto" else "files" if files else "numbers"


def load(
    source: Source,
    languages: Sequence[str],
    files: Named,
    root: str | None,
    *,
    vocabulary: int | None,
    lowercase: bool,
    max_tokens: int,
    on_error: OnError,
    pairs: int,
    largest: int,
) -> ParallelText:
    """Parallel text in tokens, made once for the same data and options, later read from the cache.

    Args:
        source: see the task ``translation``.
        languages: of source and target.
        files: by split, one file (tab-separated) or two.
        root: folder of Multi30k or Tatoeba; None: ``$MANNLAB_DATA``, then the cache.
        vocabulary: most tokens; None: 320 for numbers, 10,000 for the rest.
        lowercase: make everything lower-case first.
        max_tokens: longest sentence.
        on_error: ``raise`` or ``skip``.
        pairs, largest: of numbers.

    Raises:
        ConfigError: wrong options, or a package is not installed.
        DataError: files that are not there or cannot be read, or lines in them.
    """
    require(len(languages) == 2, f"task.languages: {list(languages)} is not allowed.", "Give two: [en, de].")
    name = named_source(source, files)
    if name != "files":
        require(
            not files, f"task.train, task.val, task.test: not with task.source={name}.", "Use source=files."
        )
    size = vocabulary or VOCABULARY.get(name, 10_000)
    require(size >= ALPHABET, f"task.vocabulary: {size} is not allowed.", f"It must be at least {ALPHABET}.")
    found = {} if name == "numbers" else locate(name, languages, files, root)
    key = [VERSION, name, *languages, size, lowercase, max_tokens]
    key += [pairs, largest, _version("num2words")] if name == "numbers" else [on_error, *_digests(found)]
    key = [*key, _version("tokenizers")]

    def build() -> Arrays:
        log.info("Translation: cutting %s into tokens; done once.", name)
        faults = Faults(on_error)
        if name == "numbers":
            parts = number_pairs(list(languages), pairs, largest)
        else:
            parts = _read(name, found, languages, faults)
        return _encode(parts, size, lowercase, max_tokens, faults)

    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=10).hexdigest()
    arrays = cached(f"translation-{digest}", build)
    skipped = json.loads(bytes(arrays["skipped"]))
    if skipped:
        log.warning("Translation: left out %s (task.on_error=skip).", _listed(skipped))
    return _text(name, arrays, skipped)


def _text(name: str, arrays: Arrays, skipped: dict[str, int]) -> ParallelText:
    description = bytes(arrays["tokenizer"])
    sides = [
        {split: Sentences(arrays[f"{split}_{side}"], arrays[f"{split}_{side}_ends"]) for split in SPLITS}
        for side in ("sources", "targets")
    ]
    fingerprint = hashlib.blake2b(description, digest_size=8).hexdigest()
    return ParallelText(name, sides[0], sides[1], Vocabulary(description.decode()), skipped, fingerprint)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} with {kind}" for kind, count in sorted(counts.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# ---------------------------------------------------------------------- files


def locate(name: str, languages: Sequence[str], files: Named, root: str | None) -> dict[str, list[Path]]:
    """The files of each split that there is; downloads Multi30k where it is missing.

    Raises:
        ConfigError: none are named, or ``root`` does not exist.
        DataError: the data is not there.
    """
    if name == "files":
        require("train" in files, "task.train: no file is named.", "Give task.train=[source.txt,target.txt].")
        for split, paths in files.items():
            require(
                len(paths) in (1, 2),
                f"task.{split}: {len(paths)} files are not allowed.",
                "Give two that are aligned by line, or one with a tab between source and target.",
            )
        return {split: [Path(path).expanduser() for path in paths] for split, paths in files.items()}
    known = multi30k.LANGUAGES
    require(
        set(languages) == set(known),
        f"task.languages: {list(languages)} is not allowed with task.source={name}.",
        "It has en and de, in either order.",
    )
    if root is not None and not Path(root).expanduser().is_dir():
        raise ConfigError(f"task.root: there is no folder {root}.", f"Name the folder that holds {name}.")
    folders = [Path(root).expanduser()] if root else data_folders()
    return _multi30k(folders, languages, root) if name == "multi30k" else _tatoeba(folders)


def _multi30k(folders: list[Path], languages: Sequence[str], root: str | None) -> dict[str, list[Path]]:
    folder = next((there for base in folders if (there := multi30k.find(base))), None)
    if folder is None:
        if root is not None:
            raise DataError(
                f"task.root: {root} holds no Multi30k.", "Looked for train.en and train.de, or .gz."
            )
        folder = multi30k.download()
    found: dict[str, list[Path]] = {}
    for split in SPLITS:
        for language in languages:
            path = multi30k.file(folder, split, language)
            if path is None:
                missing = f"{multi30k.FILES[split]}.{language}.gz"
                raise DataError(f"{folder} lacks {missing}.", f"Get it from {multi30k.URL}.")
            found.setdefault(split, []).append(path)
    return found


def _tatoeba(folders: list[Path]) -> dict[str, list[Path]]:
    for base in folders:
        for folder in (base, base / "tatoeba"):
            for name in TATOEBA:
                if (folder / name).is_file():
                    return {"train": [folder / name]}
    raise DataError("Tatoeba is not there.", TATOEBA_HINT.format(folder=folders[-1] / "tatoeba"))


def _digests(found: Mapping[str, list[Path]]) -> list[str]:
    digests = []
    for split, paths in sorted(found.items()):
        for path in paths:
            if not path.is_file():
                raise ConfigError(
                    f"task.{split}: there is no file {path}.",
                    "Paths start where the run starts; .gz is fine.",
                )
            digests.append(f"{split}:{hashlib.blake2b(path.read_bytes(), digest_size=10).hexdigest()}")
    return digests


def _read(
    name: str, found: Mapping[str, list[Path]], languages: Sequence[str], faults: Faults
) -> dict[str, Pairs]:
    # A line of Multi30k has a tab in the midst of a sentence.
    known = {"extra_columns": name == "tatoeba", "tabs": name == "multi30k"}
    parts = {split: read_pairs(paths, faults, **known) for split, paths in found.items()}
    if name == "tatoeba" and languages[0] == "de":
        whole = parts["train"]
        parts["train"] = Pairs(whole.targets, whole.sources, whole.places)
    # Whatever is not given comes from the training text.
    missing = [split for split in SPLITS if split not in parts]
    return {**parts, **divide(parts["train"], missing)} if missing else parts


# ---------------------------------------------------------------------- tokens


def _encode(parts: dict[str, Pairs], size: int, lowercase: bool, max_tokens: int, faults: Faults) -> Arrays:
    if lowercase:
        for part in parts.values():
            part.sources = [text.lower() for text in part.sources]
            part.targets = [text.lower() for text in part.targets]
    for split, part in parts.items():
        require(len(part) > 0, f"task.{split}: there is no pair of sentences.", "Give a longer text.")
    texts = [*parts["train"].sources, *parts["train"].targets]
    with waiting(f"Learning byte pairs from {len(texts):,} sentences"):
        tokenizer = train_pairs(texts, size, "task=translation")
    arrays: Arrays = {"tokenizer": np.frombuffer(tokenizer.to_str().encode(), np.uint8)}
    for split, part in progress(list(parts.items()), "Cutting sentences into tokens", "splits"):
        sides = [[one.ids for one in tokenizer.encode_batch(texts)] for texts in (part.sources, part.targets)]
        kept = [k for k in range(len(part)) if _fits(sides, k, max_tokens, part.places[k], faults)]
        require(len(kept) > 0, f"task.{split}: every pair is too long.", f"task.max_tokens is {max_tokens}.")
        for side, lines in zip(("sources", "targets"), sides, strict=True):
            arrays[f"{split}_{side}"] = np.array([t for k in kept for t in lines[k]], np.int32)
            arrays[f"{split}_{side}_ends"] = np.cumsum([0, *(len(lines[k]) for k in kept)], dtype=np.int64)
    return {**arrays, "skipped": np.frombuffer(json.dumps(faults.counts).encode(), np.uint8)}


def _fits(sides: list[Any], k: int, most: int, place: str, faults: Faults) -> bool:
    longest = max(len(lines[k]) for lines in sides)
    if longest > most:
        faults.found("a sentence that is too long", place, f"{longest} tokens; task.max_tokens is {most}.")
    return longest <= most
