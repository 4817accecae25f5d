"""The cache: where it is, and that no state of its files is fatal."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mannlab.datasets import cache
from mannlab.datasets.cache import cache_folder, cached
from mannlab.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(value=1):
    return {"a": np.full(3, value), "b": np.array(["x", "y"])}


def never():
    raise AssertionError("built again")


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("MANNLAB_CACHE", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("MANNLAB_CACHE")
    assert cache_folder() == Path("/xdg/mannlab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/anna")
    assert cache_folder() == Path("/home/anna/.cache/mannlab")


def test_arrays_are_built_once(folder):
    cached("thing", build)
    again = cached("thing", never)
    assert again["a"].tolist() == [1, 1, 1]
    assert again["b"].tolist() == ["x", "y"]
    assert [path.name for path in folder.iterdir()] == ["thing.npz"], "nothing temporary is left"


@pytest.mark.parametrize("damage", [b"", b"nonsense", "half", "flipped"])
def test_a_damaged_file_is_built_again(folder, caplog, damage):
    cached("thing", lambda: {"a": np.arange(1000)})
    path = folder / "thing.npz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    path.write_bytes({"half": whole[:middle], "flipped": flipped}.get(damage, damage))
    assert cached("thing", lambda: {"a": np.arange(1000)})["a"].tolist() == list(range(1000))
    assert "thing.npz" in caplog.text
    cached("thing", never)


def test_a_cache_that_cannot_be_written_is_done_without(folder, caplog):
    folder.write_text("a file where the folder should be")
    assert cached("thing", build)["a"].tolist() == [1, 1, 1]
    assert "MANNLAB_CACHE" in caplog.text


def test_a_failed_write_leaves_nothing(folder):
    with pytest.raises(RuntimeError, match="boom"):
        cached("thing", lambda: (_ for _ in ()).throw(RuntimeError("boom")))
    assert not folder.exists()


def test_two_writers_at_once_do_no_harm(folder):
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: cached("thing", build), range(32)))
    assert all(arrays["a"].tolist() == [1, 1, 1] for arrays in done)
    assert [path.name for path in folder.iterdir()] == ["thing.npz"]


@pytest.fixture(autouse=True)
def _warnings(caplog):
    caplog.set_level(logging.WARNING)


def test_data_is_looked_for_where_it_was_named_and_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MANNLAB_DATA", str(tmp_path / "data"))
    assert cache.data_folders() == [tmp_path / "data", tmp_path / "cache"]
    monkeypatch.delenv("MANNLAB_DATA")
    assert cache.data_folders() == [tmp_path / "cache"]


def test_nothing_is_fetched_where_that_is_forbidden(monkeypatch):
    monkeypatch.setenv("MANNLAB_OFFLINE", "1")
    with pytest.raises(DataError, match="Numbers is not on this disk, and MANNLAB_OFFLINE=1 forbids"):
        cache.may_fetch("Numbers", "Count.")
    monkeypatch.delenv("MANNLAB_OFFLINE")
    cache.may_fetch("Numbers", "Count.")
