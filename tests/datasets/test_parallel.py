"""Pairs of sentences: what is wrong with a line is named, or counted and left out."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mannlab.datasets.parallel import Faults, Pairs, divide, read_lines, read_pairs
from mannlab.errors import ConfigError, DataError


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_two_files_plain_and_packed_are_aligned(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.en", "one\ntwo \n"), write(tmp_path / "a.de.gz", "eins\r\n zwei")]
    pairs = read_pairs(files, Faults("raise"))
    assert list(zip(pairs.sources, pairs.targets, strict=True)) == [("one", "eins"), ("two", "zwei")]
    assert pairs.places == [f"{tmp_path}/a.en:1", f"{tmp_path}/a.en:2"]


def test_one_file_has_a_tab_between(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "\ufeffone\teins\ntwo\tzwei\tCC-BY\n")
    assert len(read_pairs([path], Faults("raise"), extra_columns=True)) == 2
    faults = Faults("skip")
    pairs = read_pairs([path], faults)
    assert pairs.sources == ["one"], "the byte-order mark is no character of it"
    assert faults.counts == {"not two columns": 1}


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "one\u2028still one\x0bthis too\ntwo\n")
    assert len(read_lines(path)) == 2


@pytest.mark.parametrize(
    ("line", "kind", "hint"),
    [
        (b"", "an empty line", ""),
        (b" \t ", "an empty line", ""),
        (b"stra\xdfe", "not UTF-8", "0xdf"),
        (b"one\ttwo", "a tab in the text", "given alone"),
        ("str\ufffdet".encode(), "an unknown character", "U+FFFD"),
        (b"bell\x07", "an unknown character", "U+0007"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_bad_line_is_named_or_counted(tmp_path: Path, line: bytes, kind: str, hint: str, side: int) -> None:
    sides = [b"one\ntwo\nthree\n"] * 2
    sides[side] = b"one\n" + line + b"\nthree\n"
    files = [write(tmp_path / f"{k}.txt", content) for k, content in enumerate(sides)]
    with pytest.raises(DataError) as found:
        read_pairs(files, Faults("raise"))
    assert f"{tmp_path}/{side}.txt:2: {kind}" in str(found.value)
    assert hint in str(found.value)
    assert "task.on_error=skip" in str(found.value)
    faults = Faults("skip")
    assert read_pairs(files, faults).targets == ["one", "three"]
    assert faults.counts == {kind: 1}


def test_a_tab_can_be_taken_for_a_space(tmp_path: Path) -> None:
    files = [write(tmp_path / "a", "one\n"), write(tmp_path / "b", "in einer \tFontäne\n")]
    assert read_pairs(files, Faults("raise"), tabs=True).targets == ["in einer  Fontäne"]


def test_letters_of_any_script_are_fine(tmp_path: Path) -> None:
    text = "Zwölf Bücher … 日本語 العربية 👩‍🚀 a\u00a0b\n"
    files = [write(tmp_path / name, text) for name in "ab"]
    assert read_pairs(files, Faults("raise")).sources == [text.strip()]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_of_other_lengths_cannot_be_aligned(tmp_path: Path, on_error: str) -> None:
    files = [write(tmp_path / "a", "1\n2\n"), write(tmp_path / "b", "1\n")]
    with pytest.raises(DataError, match=r"a has 2 lines, .*b has 1"):
        read_pairs(files, Faults(on_error))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["one\ntwo\nthree\n", "日本\n東京\n", "one\r\nċ and Ċ\r\n"])
@pytest.mark.parametrize("name", ["b.txt", "b.txt.gz"])
def test_utf_16_is_named(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    files = [write(tmp_path / "a.txt", text), write(tmp_path / name, text.encode(encoding))]
    with pytest.raises(DataError, match=rf"{name} is not UTF-8 \(it looks like UTF-16\)(.|\n)*iconv"):
        read_pairs(files, Faults("skip"))


def test_a_stray_nul_is_a_fault_of_its_line(tmp_path: Path) -> None:
    files = [write(tmp_path / name, "one\nt\0wo\nthree") for name in "ab"]
    faults = Faults("skip")
    assert len(read_pairs(files, faults)) == 2
    assert faults.counts == {"an unknown character": 1}


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        read_lines(tmp_path / "no")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"word " * 99)[:20])
    with pytest.raises(DataError, match=r"a\.gz cannot be read"):
        read_lines(tmp_path / "a.gz")


def test_no_sentence_is_in_two_parts_and_the_order_is_the_same_everywhere() -> None:
    pairs = Pairs()
    for i in range(3000):
        pairs.add(f"Sentence {i // 3}.", f"Satz {i}.", f"x:{i}")
    parts = divide(pairs)
    seen = {split: {text.casefold() for text in part.sources} for split, part in parts.items()}
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]
    assert sum(map(len, parts.values())) == 3000
    assert 20 <= len(parts["val"]) <= 110
    assert parts["train"].sources[0] != pairs.sources[0] or parts["train"].sources[3] != pairs.sources[3]
    for part in parts.values():
        assert all(
            s.split()[1][:-1] == str(int(t.split()[1][:-1]) // 3)
            for s, t in zip(part.sources, part.targets, strict=True)
        )
    backwards = Pairs(pairs.sources[::-1], pairs.targets[::-1], pairs.places[::-1])
    assert divide(backwards)["train"].targets == parts["train"].targets


@pytest.mark.parametrize("distinct", [3, 4, 7, 20, 60, 100])
def test_no_part_of_a_text_of_few_sentences_is_empty(distinct: int) -> None:
    pairs = Pairs()
    for i in range(3000):
        pairs.add(f"Question {i % distinct}?", f"Antwort {i}.", f"x:{i}")
    parts = divide(pairs)
    seen = [set(part.sources) for part in parts.values()]
    assert all(seen)
    assert sum(map(len, seen)) == len(set.union(*seen)) == distinct
    assert sum(map(len, parts.values())) == 3000
    assert len(seen[0]) >= max(map(len, seen))


def test_too_few_sentences_to_divide_are_counted() -> None:
    pairs = Pairs(["One.", "Two.", "one."], ["Eins.", "Zwei.", "eins."], ["x:1", "x:2", "x:3"])
    with pytest.raises(
        ConfigError, match=r"2 distinct source sentences(.|\n)*task\.val=\[…\].*task\.test=\[…\]"
    ):
        divide(pairs)
