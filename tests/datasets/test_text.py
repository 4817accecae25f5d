"""Text in tokens."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mannlab.datasets.text import corpus, where
from mannlab.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MANNLAB_DATA", raising=False)
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wikitext(tmp_path: Path) -> Path:
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    (folder / "train.txt").write_text("the cat sat .\nthe dog sat .\n")
    (folder / "valid.txt.gz").write_bytes(gzip.compress(b"the <unk> sat .\n"))
    (folder / "test.txt").write_text("a cat\n")
    return tmp_path


def test_words_are_counted_on_the_training_part_and_the_rest_is_unknown(wikitext: Path) -> None:
    read = corpus("wikitext-2", "word", None, str(wikitext), [])
    assert read.source == "wikitext-2"
    assert read.vocabulary == 7  # the cat sat dog . newline <unk>
    train, val, test = (read.tokens[split].tolist() for split in ("train", "val", "test"))
    assert len(train) == 10
    assert train[0] == train[5] == val[0]
    assert val[1] == test[0], "what is not known is what <unk> is"
    assert train[1] == test[1]
    assert read.words == {"train": 10, "val": 5, "test": 3}


def test_wikitext_is_cut_at_its_spaces_and_line_ends_alone(wikitext: Path, tmp_path: Path) -> None:
    line = "the U.S. did n't buy 3 @.@ 5 <unk> 's\n"
    (wikitext / "wikitext-2" / "train.txt").write_text(line)
    read = corpus("wikitext-2", "word", None, str(wikitext), [])
    assert len(read.tokens["train"]) == len(line.split()) + 1 == read.words["train"]
    assert read.vocabulary == len({*line.split(), "\n"})
    (tmp_path / "same.txt").write_text(line * 20)
    other = corpus("files", "word", None, None, [str(tmp_path / "same.txt")])
    assert {"U", ".", "S"} <= set(other.symbols)
    assert "U.S." in read.symbols


def test_marks_of_encodings_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"ab" * 50)
    read = corpus("files", "byte", None, None, [str(tmp_path / "a.txt")])
    assert read.tokens["train"][0] == ord("a")
    (tmp_path / "b.txt").write_text("ab\n" * 50, encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        corpus("files", "byte", None, None, [str(tmp_path / "b.txt")])


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"some words " * 500))
    whole[12:20] = b"\xff" * 8
    (tmp_path / "a.txt.gz").write_bytes(bytes(whole))
    with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read"):
        corpus("files", "word", None, None, [str(tmp_path / "a.txt.gz")])


def test_the_rarest_words_are_dropped_first(wikitext: Path) -> None:
    read = corpus("wikitext-2", "word", 5, str(wikitext), [])
    assert read.vocabulary == 5
    assert read.tokens["train"][1] == read.tokens["val"][1], "'cat' came once"


def test_wikitext_is_found_where_data_lies(wikitext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert where("auto", None) == ("pydoc", None)
    monkeypatch.setenv("MANNLAB_DATA", str(wikitext))
    assert where("auto", None) == ("wikitext-2", wikitext / "wikitext-2")


def test_bytes_are_the_text_itself_and_parts_follow_each_other() -> None:
    read = corpus("pydoc", "byte", None, None, [])
    from pydoc_data.topics import topics

    whole = np.concatenate([read.tokens[split] for split in ("train", "val", "test")])
    assert bytes(whole.astype(np.uint8)).decode() == "\n".join(topics[key] for key in sorted(topics))
    assert read.vocabulary == 256
    assert len(read.tokens["val"]) == pytest.approx(len(whole) * 0.05, rel=0.02)


def test_byte_pairs_are_fewer_than_bytes(wikitext: Path) -> None:
    pytest.importorskip("tokenizers")
    pairs = corpus("pydoc", "bpe", 500, None, [])
    plain = corpus("pydoc", "byte", None, None, [])
    assert pairs.vocabulary == 500
    assert pairs.tokens["train"].max() < 500
    assert len(pairs.tokens["test"]) < 0.6 * len(plain.tokens["test"])
    assert pairs.words == plain.words


def test_files_are_read_in_turn(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab" * 50)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"cd" * 50))
    read = corpus("files", "byte", None, None, [str(tmp_path / "a.txt"), str(tmp_path / "b.txt.gz")])
    assert [len(read.tokens[split]) for split in ("train", "val", "test")] == [180, 10, 11]


def test_what_is_missing_is_named(tmp_path: Path, wikitext: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.files: there is no file"):
        corpus("files", "word", None, None, [str(tmp_path / "no.txt")])
    with pytest.raises(ConfigError, match="none is named"):
        corpus("files", "word", None, None, [])
    with pytest.raises(ConfigError, match=r"task.root: there is no folder"):
        where("auto", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="WikiText-2 is not there"):
        where("wikitext-2", None)
    (wikitext / "wikitext-2" / "valid.txt.gz").write_bytes(gzip.compress(b"the cat " * 99)[:30])
    with pytest.raises(DataError, match=r"valid.txt.gz cannot be read"):
        corpus("wikitext-2", "word", None, str(wikitext), [])
