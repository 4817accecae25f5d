"""bAbI's files: every layout, the format line by line, what is wrong with a broken one, and the download."""

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mannlab.datasets import babi
from mannlab.errors import DataError

STORY = (
    "1 Mary moved to the bathroom.\n"
    "2 Where is Mary? \tbathroom\t1\n"
    "3 Bill gave Mary the Milk there.\n"
    "4 What is Mary carrying? \tmilk,apple\t3 1\n"
    "1 John isn't in the hall.\n"
    "2 Is John in the hall?\tno\t1\n"
)
DATA = os.environ.get("MANNLAB_DATA")


def name(size, task, split):
    return f"{babi.SIZES[size]}/qa{task}_some-name_{split}.txt"


def content(task, split):
    return STORY.replace("Mary", f"Mary{task}{split}").encode()


def tree(folder, sizes=("1k", "10k")):
    for size in sizes:
        for task in (1, 2, 12):
            for split in ("train", "test"):
                path = folder / name(size, task, split)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(task, split))


def archives(folder, whole=False):
    tree(folder / "tmp")
    targets = [("tasks_1-20_v1-2", babi.SIZES.values())] if whole else [(n, [n]) for n in babi.SIZES.values()]
    for target, inner in targets:
        with tarfile.open(folder / f"{target}.tar.gz", "w:gz") as opened:
            for part in inner:
                opened.add(folder / "tmp" / part, f"{target}/{part}" if whole else part)


LAYOUTS = [tree, archives, partial(archives, whole=True)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["folders", "archives", "release"])
@pytest.mark.parametrize("inner", babi.FOLDERS)
def test_every_layout_is_read(tmp_path, layout, inner):
    layout(tmp_path / "data" / inner)
    folder = babi.find(tmp_path / "data")
    assert folder == tmp_path / "data" / inner
    for size in babi.SIZES:
        found = babi.files(folder, size, [1, 12])
        assert sorted(found) == [(1, "test"), (1, "train"), (12, "test"), (12, "train")]
        for (task, split), (title, read) in found.items():
            assert read == content(task, split)
            assert f"qa{task}_" in title


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert babi.find(tmp_path) is None
    assert babi.find(tmp_path / "nowhere") is None


def test_a_missing_size_and_a_missing_task_are_named(tmp_path):
    tree(tmp_path, ["1k"])
    with pytest.raises(DataError, match=r"has no en-10k \(task\.size=10k\)"):
        babi.files(tmp_path, "10k", [1])
    with pytest.raises(DataError, match=r"no file qa3_\.\.\._train\.txt"):
        babi.files(tmp_path, "1k", [1, 3])


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_an_archive_cut_short_is_named(tmp_path, kept):
    archives(tmp_path)
    path = tmp_path / "en.tar.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=r"en\.tar\.gz is damaged"):
        babi.files(tmp_path, "1k", [1, 2, 12])


# ---------------------------------------------------------------------- format


def test_lines_are_understood():
    read = babi.parse(STORY.encode(), "a file")
    assert [len(story) for story in read.stories] == [4, 2]
    assert read.stories[0] == [
        (("mary", "moved", "to", "the", "bathroom"), None),
        (("where", "is", "mary"), "bathroom"),
        (("bill", "gave", "mary", "the", "milk", "there"), None),
        (("what", "is", "mary", "carrying"), "milk,apple"),
    ]
    assert read.stories[1][0].words == ("john", "isn't", "in", "the", "hall")
    assert (read.skipped_lines, read.skipped_stories) == (0, 0)


@pytest.mark.parametrize("ending", ["\r\n", "\n\n"])
def test_line_ends_of_others_and_blank_lines_are_fine(ending):
    changed = STORY.replace("\n", ending).encode()
    assert babi.parse(changed, "a file").stories == babi.parse(STORY.encode(), "a file").stories


BROKEN = [
    ("Mary moved to the bathroom.", "does not begin with a number"),
    ("²  Mary moved.", "does not begin with a number"),
    ("3 ", "no words"),
    ("3 ...", "no words"),
    ("7 Mary moved to the bathroom.", "its number is 7, not 3"),
    ("3 Where is Mary?\tbathroom", "each after a tab"),
    ("3 Where is Mary?\tbathroom\t1\t2", "each after a tab"),
    ("3 Where is Mary?\t \t1", "answer is missing"),
    ("3 Where is Mary?\tbathroom\t", "not earlier lines"),
    ("3 Where is Mary?\tbathroom\t3", "not earlier lines"),
    ("3 Where is Mary?\tbathroom\t0", "not earlier lines"),
    ("3 Where is Mary?\tbathroom\tone", "not earlier lines"),
]


@pytest.mark.parametrize(("line", "why"), BROKEN)
def test_a_malformed_line_is_named_or_its_story_left_out(line, why):
    lines = STORY.splitlines()
    lines[2] = line
    broken = "\n".join(lines).encode()
    with pytest.raises(DataError, match=rf"a file, line 3 is malformed: (.*){why}(.|\n)*task\.on_error=skip"):
        babi.parse(broken, "a file")
    read = babi.parse(broken, "a file", "skip")
    assert [len(story) for story in read.stories] == [2]
    assert read.skipped_stories == 1
    assert read.skipped_lines >= 1


@pytest.mark.parametrize("line", [b"1 ...", b"1", b"1 Where is Mary?\tbathroom", b"1 Jo\xff sleeps."])
def test_a_malformed_first_line_leaves_the_story_before_it(line):
    whole = babi.parse(STORY.encode(), "a file").stories
    read = babi.parse(STORY.encode() + line + b"\n2 Ann left.\n" + STORY.encode(), "a file", "skip")
    assert read.stories == whole * 2
    assert (read.skipped_lines, read.skipped_stories) == (1, 1)


def test_bytes_that_are_no_text_are_named():
    with pytest.raises(DataError, match=r"line 2 is malformed: it is not text in UTF-8"):
        babi.parse(STORY.encode().replace(b"Where", b"Wh\xffre"), "a file")


def test_a_file_must_begin_with_a_story():
    with pytest.raises(DataError, match=r"line 1 is malformed: its number is 2, not 1"):
        babi.parse(STORY.partition("\n")[2].encode(), "a file")


# ---------------------------------------------------------------------- download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine that has the release; its checksums are known."""
    home = tmp_path / "server"
    archives(home, whole=True)
    sums = {
        task: tuple(
            hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:20]
            for data in (content(task, "train"), content(task, "train"), content(task, "test"))
        )
        for task in (1, 2, 12)
    }
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home)))
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    at = f"http://127.0.0.1:{web.server_port}"
    monkeypatch.setattr(babi, "URLS", (f"{at}/not_there.tar.gz", f"{at}/tasks_1-20_v1-2.tar.gz"))
    monkeypatch.setattr(babi, "CONTENT", sums)
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("MANNLAB_OFFLINE", raising=False)
    yield home
    web.shutdown()
    web.server_close()
    thread.join()


def leftovers(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*"))


def test_the_download_lands_in_the_cache_and_is_read(server, tmp_path):
    """From the second address, since the first does not have it."""
    folder = babi.download()
    assert leftovers(tmp_path) == ["babi", "tasks_1-20_v1-2.tar.gz"]
    assert babi.find(tmp_path / "cache") == folder
    assert len(babi.files(folder, "10k", [1, 2, 12])) == 6


@pytest.mark.parametrize("wrong", ["content", "missing", "damaged"])
def test_another_content_is_refused(server, tmp_path, monkeypatch, wrong):
    if wrong == "content":
        monkeypatch.setitem(babi.CONTENT, 2, ("0" * 20,) * 3)
    elif wrong == "missing":
        monkeypatch.setitem(babi.CONTENT, 3, ("0" * 20,) * 3)
    else:
        (server / "tasks_1-20_v1-2.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"could not be fetched(.|\n)*task\.source=generated") as error:
        babi.download()
    assert "404" in str(error.value), "what was wrong with each address"
    assert {"content": "qa2", "missing": "missing", "damaged": "damaged"}[wrong] in str(error.value)
    assert leftovers(tmp_path) == ["babi"], "nothing of it stays"


def test_offline_asks_no_server(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MANNLAB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"MANNLAB_OFFLINE=1(.|\n)*MANNLAB_DATA"):
        babi.download()
    assert not (tmp_path / "cache").exists()


# ---------------------------------------------------------------------- the release itself


@pytest.mark.skipif(not DATA or not babi.find(Path(DATA)), reason="no bAbI in $MANNLAB_DATA")
@pytest.mark.parametrize("size", babi.SIZES)
def test_the_release_is_as_it_was_released(size):
    """Task 3's long training file may be another one: the original is hard to come by."""
    folder = babi.find(Path(DATA))
    found = babi.files(folder, size, range(1, 21))
    assert set(babi.altered(found, size)) <= ({"qa3_train"} if size == "10k" else set())
    for task in (1, 19):
        read = babi.parse(found[task, "test"][1], "test")
        assert sum(line.answer is not None for story in read.stories for line in story) == 1000
