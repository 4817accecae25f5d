"""Stories with questions as numbers: bAbI where it is or can be had, else tales of ours."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mannlab.datasets import babi, tales
from mannlab.datasets.babi import OnError, Read, Story
from mannlab.datasets.cache import Arrays, cache_folder, cached, data_folders
from mannlab.datasets.parallel import hashed
from mannlab.errors import ConfigError, DataError
from mannlab.progress import progress

log = logging.getLogger(__name__)

SOURCES = Literal["auto", "babi", "generated"]
VERSION = 2  # of the cached arrays
VAL_SHARE = 0.1  # of the training stories
TEST_STORIES = 200  # of each generated family
UNKNOWN, STOP, ASKED = 0, 1, 2  # symbols that are no words; answers have the first alone
SYMBOLS = ("<unknown>", ".", "?")


@dataclass(frozen=True)
class Source:
    """Where stories come from: ``"babi"`` and its folder, or ``"generated"``."""

    name: str
    folder: Path | None = None


@dataclass(frozen=True)
class Part:
    """The stories of a split, L lines in all.

    Attributes:
        words: ``int16[L, J]``, -1 after the last; a question ends in ``ASKED``.
        answers: ``int16[L]``; -1: not a question.
        starts: ``int64[stories + 1]``, the first line of each story, and L.
        groups: ``int16[stories]``, index of the task or family.
    """

    words: NDArray[np.int16]
    answers: NDArray[np.int16]
    starts: NDArray[np.int64]
    groups: NDArray[np.int16]

    def alone(self, recent: int | None = None) -> Part:
        """Each question as a story of its own: the statements before it, no other questions, and itself.

        Args:
            recent: keep only so many of the last statements.
        """
        rows, starts = [np.empty(0, np.int64)], [0]
        for first, end in pairwise(self.starts.tolist()):
            asked = self.answers[first:end] >= 0
            statements = first + np.flatnonzero(~asked)
            for question in first + np.flatnonzero(asked):
                before = statements[: np.searchsorted(statements, question)]
                rows.append(np.append(before[-recent:] if recent else before, question))
                starts.append(starts[-1] + len(rows[-1]))
        every = np.concatenate(rows)
        questions = np.add.reduceat((self.answers >= 0).astype(np.int64), self.starts[:-1])
        return Part(
            self.words[every],
            self.answers[every],
            np.array(starts, np.int64),
            np.repeat(self.groups, questions),
        )


@dataclass(frozen=True)
class Corpus:
    """Stories as numbers.

    Attributes:
        source: see :class:`Source`.
        groups: names of tasks (``task_1``) or families (``single_fact``).
        vocabulary: words by number, of the training stories.
        answers: answers by number, of the training stories; several words are one answer.
        parts: by split: train, val, test.
        altered: files that are not as they were released.
        skipped_lines: lines that could not be understood.
        skipped_stories: stories left out for it.
    """

    source: Source
    groups: list[str]
    vocabulary: list[str]
    answers: list[str]
    parts: dict[str, Part]
    altered: list[str]
    skipped_lines: int
    skipped_stories: int


_known: dict[tuple[str | None, ...], Source] = {}


def resolve(source: str, root: str | None = None) -> Source:
    """Find bAbI on disk, or fetch it; decided once a process for the same question.

    Args:
        source: ``"babi"``, ``"generated"``, or ``"auto"``: bAbI if it is on disk or can be fetched (one
            attempt), else generated.
        root: the folder that holds bAbI; without it, ``$MANNLAB_DATA``, then the cache folder.

    Raises:
        ConfigError: ``root`` does not exist.
        DataError: bAbI was asked for and is not to be had, or ``root`` does not hold it.
    """
    places = ("MANNLAB_DATA", "MANNLAB_OFFLINE")
    key = (source, root, str(cache_folder()), *(os.environ.get(name) for name in places))
    if key not in _known:
        _known[key] = _resolve(source, root)
    return _known[key]


def _resolve(source: str, root: str | None) -> Source:
    if source == "generated":
        log.info("Stories: generated (task.source=generated), not bAbI.")
        return Source("generated")
    folder = _on_disk(root)
    if folder is None:
        try:
            folder = babi.download()
        except DataError as error:
            if source == "babi":
                raise
            log.warning(
                "Stories: GENERATED, NOT bAbI. %s Numbers on generated stories and on bAbI cannot be "
                "compared. Set task.root or MANNLAB_DATA to a folder that holds bAbI.",
                error.what,
            )
            return Source("generated")
    log.info("Stories: bAbI in %s.", folder)
    return Source("babi", folder)


def _on_disk(root: str | None) -> Path | None:
    if root is None:
        return next((found for folder in data_folders() if (found := babi.find(folder))), None)
    named = Path(root).expanduser()
    looked = f"Looked for en/ and en-10k/ (or .tar.gz of them, or {babi.RELEASE}.tar.gz)."
    if not named.is_dir():
        raise ConfigError(f"task.root: there is no folder {named}.", looked)
    folder = babi.find(named)
    if folder is None:
        raise DataError(f"task.root: {named} holds no bAbI.", looked)
    return folder


def load_babi(source: Source, size: str, tasks: Sequence[int], on_error: OnError) -> Corpus:
    """Some tasks of bAbI; kept in the cache, by content.

    Raises:
        DataError: a file that is missing, damaged or malformed.
    """
    assert source.folder is not None
    files = babi.files(source.folder, size, tasks)
    digest = hashlib.blake2b(digest_size=10)
    for key, (_, content) in sorted(files.items()):
        digest.update(f"{key}|{len(content)}|".encode() + content)

    def build() -> Arrays:
        found = progress(list(files.items()), "Reading bAbI", "files")
        reads = {key: babi.parse(content, name, on_error) for key, (name, content) in found}
        return encode({named(task): (reads[task, "train"], reads[task, "test"]) for task in tasks})

    arrays = cached(f"babi-v{VERSION}-{on_error}-{digest.hexdigest()}", build)
    altered = babi.altered(files, size)
    if altered:
        log.warning("bAbI in %s is not as released: %s.", source.folder, ", ".join(altered))
    return _corpus(source, [named(task) for task in tasks], arrays, altered)


def named(task: int) -> str:
    """The name of a task of bAbI among groups."""
    return f"task_{task}"


def load_tales(size: str, families: Sequence[str]) -> Corpus:
    """Generated stories: as many training questions of each family as bAbI has of a task."""
    count = {"1k": 1000, "10k": 10_000}[size] // tales.QUESTIONS
    reads = {
        family: (Read(tales.make(family, count, "train")), Read(tales.make(family, TEST_STORIES, "test")))
        for family in progress(families, "Telling stories", "families")
    }
    return _corpus(Source("generated"), list(families), encode(reads), [])


def _corpus(source: Source, groups: list[str], arrays: Arrays, altered: list[str]) -> Corpus:
    parts = {
        split: Part(*(arrays[f"{split}_{name}"] for name in ("words", "answers", "starts", "groups")))
        for split in ("train", "val", "test")
    }
    lines, stories = arrays["skipped"].tolist()
    return Corpus(
        source,
        groups,
        arrays["vocabulary"].tolist(),
        arrays["answers"].tolist(),
        parts,
        altered,
        lines,
        stories,
    )


def encode(groups: Mapping[str, tuple[Read, Read]]) -> Arrays:
    """Training and test stories of each group, by name, as arrays: see :class:`Part`.

    A tenth of each group's training stories, picked by a shuffle that depends on the group's name alone, is
    set aside for validation.
    """
    parts: dict[str, list[tuple[int, Story]]] = {"train": [], "val": [], "test": []}
    for number, (name, (train, test)) in enumerate(groups.items()):
        order = np.random.Generator(np.random.PCG64(hashed(name))).permutation(len(train.stories))
        aside = set(order[: round(len(order) * VAL_SHARE)].tolist())
        for place, story in enumerate(train.stories):
            parts["val" if place in aside else "train"].append((number, story))
        parts["test"] += [(number, story) for story in test.stories]
    # A story without a question asks nothing of anybody.
    asked = {
        split: [pair for pair in stories if any(line.answer for line in pair[1])]
        for split, stories in parts.items()
    }
    for split, stories in asked.items():
        if not stories:
            raise DataError(f"There are no questions for {split}.", "Give more stories.")
    lines = [line for _, story in asked["train"] for line in story]
    words = [*SYMBOLS, *sorted({word for line in lines for word in line.words})]
    answers = [SYMBOLS[UNKNOWN], *sorted({line.answer for line in lines if line.answer})]
    longest = max(len(line.words) for stories in asked.values() for _, story in stories for line in story)
    arrays: Arrays = {"vocabulary": np.array(words), "answers": np.array(answers)}
    reads = [read for pair in groups.values() for read in pair]
    arrays["skipped"] = np.array(
        [sum(read.skipped_lines for read in reads), sum(read.skipped_stories for read in reads)]
    )
    for split, stories in asked.items():
        arrays |= {f"{split}_{name}": a for name, a in _numbers(stories, words, answers, longest + 1).items()}
    return arrays


def _numbers(stories: list[tuple[int, Story]], words: list[str], answers: list[str], width: int) -> Arrays:
    word_number = {word: i for i, word in enumerate(words)}
    answer_number = {answer: i for i, answer in enumerate(answers)}
    lines = [line for _, story in stories for line in story]
    table = np.full((len(lines), width), -1, np.int16)
    asked = np.full(len(lines), -1, np.int16)
    for row, line in enumerate(lines):
        numbers = [word_number.get(word, UNKNOWN) for word in line.words]
        if line.answer is not None:
            numbers.append(ASKED)
            asked[row] = answer_number.get(line.answer, UNKNOWN)
        table[row, : len(numbers)] = numbers
    lengths = np.array([len(story) for _, story in stories])
    return {
        "words": table,
        "answers": asked,
        "starts": np.concatenate([[0], np.cumsum(lengths)]),
        "groups": np.array([number for number, _ in stories], np.int16),
    }
