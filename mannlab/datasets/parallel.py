"""Pairs of sentences in two languages, read from files; what is wrong with a line is named or counted."""

from __future__ import annotations

import gzip
import hashlib
import unicodedata
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mannlab.errors import ConfigError, DataError, require

OnError = Literal["raise", "skip"]
SPLITS = ("train", "val", "test")
DAMAGED = ("Cc", "Cs", "Cn")  # control characters, lone surrogates, numbers of no character
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # its byte-order marks
# Of a text that is not divided yet: one source sentence in so many is for validation, another for the test.
HELD_OUT = 50


@dataclass
class Pairs:
    """Sentences and their translations.

    Attributes:
        sources: one language.
        targets: the other, aligned.
        places: where each pair comes from, such as ``train.tsv:17``, for messages.
    """

    sources: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, source: str, target: str, place: str) -> None:
        """One more pair."""
        self.sources.append(source)
        self.targets.append(target)
        self.places.append(place)


class Faults:
    """What to do about lines that cannot be used: stop at the first, or leave them out and count.

    Args:
        on_error: ``raise`` or ``skip``.

    Attributes:
        counts: by kind of fault, how many pairs were left out.
    """

    def __init__(self, on_error: OnError) -> None:
        self.on_error, self.counts = on_error, Counter[str]()

    def found(self, kind: str, place: str, hint: str = "") -> None:
        """Note a fault.

        Raises:
            DataError: unless faulty lines are to be left out.
        """
        if self.on_error == "raise":
            mend = "Mend the line, or leave such lines out, counted, with task.on_error=skip."
            raise DataError(f"{place}: {kind}.", f"{hint} {mend}".strip())
        self.counts[kind] += 1


def read_raw(path: Path) -> bytes:
    """What is in a plain or .gz file of text, without a byte-order mark.

    Raises:
        ConfigError: there is no such file.
        DataError: it cannot be read, or is in UTF-16.
    """
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.", "Paths start where the run starts; .gz is fine.")
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", "It may be cut short: get it again.") from error
    refuse_utf16(raw, path)
    return raw.removeprefix(BOM)


def read_lines(path: Path) -> list[bytes]:
    """The lines of :func:`read_raw` as they are, without line ends."""
    # At newlines alone: some characters that splitlines() cuts at are part of sentences.
    lines = read_raw(path).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def refuse_utf16(raw: bytes, path: Path | str) -> None:
    """Raise :class:`DataError` for bytes that begin as UTF-16 does, or have a NUL for each newline.

    Their lines would be found faulty one by one, or not aligned. A stray NUL is a fault of its line.
    """
    zeros = raw.count(b"\0")
    if raw.startswith(UTF16) or 1 < zeros >= raw.count(b"\n"):
        raise DataError(
            f"{path} is not UTF-8 (it looks like UTF-16).", "Convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW."
        )


def fault(line: bytes) -> tuple[str, str, str]:
    """What is wrong with a line, if anything: its text, the fault (or empty) and a hint."""
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        hint = f"Byte {error.start + 1} is 0x{line[error.start]:02x}; convert the file: iconv -t UTF-8."
        return "", "not UTF-8", hint
    if not text:
        return "", "an empty line", ""
    if text.isprintable() and "\ufffd" not in text:
        return text, "", ""
    for character in text:
        if character == "\t":
            return text, "a tab in the text", "A file of pairs with a tab between them is given alone."
        if character == "\ufffd" or unicodedata.category(character) in DAMAGED:
            what = f"The character U+{ord(character):04X} belongs to no text; it was damaged before."
            return text, "an unknown character", what
    return text, "", ""


def read_pairs(
    files: Sequence[Path], faults: Faults, *, extra_columns: bool = False, tabs: bool = False
) -> Pairs:
    """Pairs from two files aligned by line, or from one with a tab between source and target.

    Args:
        files: one or two.
        faults: told of lines that cannot be used.
        extra_columns: let further columns of a tab-separated file be.
        tabs: in two files, take a tab for the space that it was meant to be.

    Raises:
        ConfigError: a file is not there.
        DataError: the files do not have as many lines, or a line cannot be used and faults are raised.
    """
    pairs = Pairs()
    for number, columns, where in _rows(files, faults, extra_columns):
        read = [fault(column.replace(b"\t", b" ") if tabs else column) for column in columns]
        wrong = [(kind, hint, k) for k, (_, kind, hint) in enumerate(read) if kind]
        if wrong:
            kind, hint, k = wrong[0]
            faults.found(kind, f"{where[k]}:{number}", hint)
        else:
            pairs.add(read[0][0], read[1][0], f"{where[0]}:{number}")
    return pairs


def _rows(
    files: Sequence[Path], faults: Faults, extra_columns: bool
) -> Iterator[tuple[int, list[bytes], list[Path]]]:
    if len(files) == 2:
        one, other = (read_lines(path) for path in files)
        if len(one) != len(other):
            raise DataError(
                f"{files[0]} has {len(one):,} lines, {files[1]} has {len(other):,}.",
                "Line i of one must be the translation of line i of the other.",
            )
        for number, columns in enumerate(zip(one, other, strict=True), 1):
            yield number, list(columns), list(files)
        return
    for number, line in enumerate(read_lines(files[0]), 1):
        columns_here = line.split(b"\t")
        if len(columns_here) < 2 or (len(columns_here) > 2 and not extra_columns):
            hint = f"It has {len(columns_here)} columns; a tab between source and target makes two."
            faults.found("not two columns", f"{files[0]}:{number}", hint)
        else:
            yield number, columns_here[:2], [files[0]] * 2


def hashed(text: str, salt: str = "") -> int:
    """A number of 64 bits that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{salt}{text}".encode(), digest_size=8).digest(), "little")


def divide(pairs: Pairs, held_out: Sequence[str] = SPLITS[1:]) -> dict[str, Pairs]:
    """A text's pairs in parts, by source sentence: none is in two of them. The order is shuffled.

    Different sentences may have one translation, which can then be in two parts.

    Both the part and the order are those of hashes, so they stay when the text grows; of a text of few
    sentences, a part that would be empty gets one.

    Args:
        pairs: of the text.
        held_out: which of ``val`` and ``test`` are taken out of what remains for ``train``.

    Raises:
        ConfigError: there are not as many distinct source sentences as parts.
    """
    parts = {split: Pairs() for split in ("train", *held_out)}
    keys = [hashed(source.casefold()) for source in pairs.sources]
    chosen = _choose(set(keys), held_out)
    for i in sorted(range(len(pairs)), key=lambda i: (keys[i], pairs.targets[i])):
        parts[chosen[keys[i]]].add(pairs.sources[i], pairs.targets[i], pairs.places[i])
    return parts


def _choose(keys: Collection[int], held_out: Sequence[str]) -> dict[int, str]:
    """The part of each distinct source sentence; none is empty."""
    require(
        len(keys) > len(held_out),
        f"task.train: there are {len(keys)} distinct source sentences, too few to take some out of them for "
        f"{' and '.join(f'task.{split}' for split in held_out)}.",
        "Give a longer text, or files for task.val=[…] and task.test=[…].",
    )
    wanted = {split: place for place, split in enumerate(SPLITS[1:]) if split in held_out}
    parts: dict[str, list[int]] = {split: [] for split in ("train", *held_out)}
    for key in sorted(keys):
        split = next((split for split, place in wanted.items() if key % HELD_OUT == place), "train")
        parts[split].append(key)
    for part in parts.values():
        if not part:
            part.append(max(parts.values(), key=len).pop(0))
    return {key: split for split, part in parts.items() for key in part}
