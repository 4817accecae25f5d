"""Where characters come from: what is looked at first, and what happens when there is no Omniglot."""

from __future__ import annotations

import logging

import pytest

from mannlab.datasets import characters, omniglot
from mannlab.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(characters, "_known", {})
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MANNLAB_OFFLINE", "1")
    monkeypatch.delenv("MANNLAB_DATA", raising=False)


def place(folder, parts=("images_background", "images_evaluation")):
    for part in parts:
        (folder / part).mkdir(parents=True)
    return folder


def test_root_comes_before_the_environment_and_that_before_the_cache(tmp_path, monkeypatch):
    cache = place(tmp_path / "cache" / "omniglot")
    assert characters.resolve("auto").folder == cache
    data = place(tmp_path / "data")
    monkeypatch.setenv("MANNLAB_DATA", str(data))
    assert characters.resolve("auto").folder == data
    root = place(tmp_path / "mine" / "omniglot-py")
    assert characters.resolve("auto", str(tmp_path / "mine")).folder == root


def test_data_without_omniglot_is_passed_over(tmp_path, monkeypatch):
    cache = place(tmp_path / "cache" / "omniglot")
    monkeypatch.setenv("MANNLAB_DATA", str(tmp_path))
    assert characters.resolve("omniglot").folder == cache


def test_auto_falls_back_to_glyphs_and_says_so_once(caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        assert characters.resolve("auto").name == "glyphs"
    (record,) = caplog.records
    assert "NOT OMNIGLOT" in record.getMessage()
    assert "MANNLAB_OFFLINE" in record.getMessage()


def test_auto_fetches_what_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(omniglot, "download", lambda: tmp_path)
    assert characters.resolve("auto") == characters.Source("omniglot", tmp_path)


def test_auto_tries_once(monkeypatch):
    tries = []

    def fail():
        tries.append(1)
        raise DataError("no network")

    monkeypatch.setattr(omniglot, "download", fail)
    assert [characters.resolve("auto").name for _ in range(3)] == ["glyphs"] * 3
    assert len(tries) == 1


def test_half_a_download_in_the_cache_is_fetched_again(monkeypatch, tmp_path):
    place(tmp_path / "cache" / "omniglot", ["images_background"])
    monkeypatch.setattr(omniglot, "download", lambda: tmp_path / "fresh")
    assert characters.resolve("auto").folder == tmp_path / "fresh"


def test_glyphs_are_taken_even_if_omniglot_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MANNLAB_DATA", str(place(tmp_path / "data")))
    assert characters.resolve("glyphs") == characters.Source("glyphs")


def test_omniglot_that_is_not_to_be_had_is_an_error():
    with pytest.raises(DataError, match="MANNLAB_OFFLINE"):
        characters.resolve("omniglot")


@pytest.mark.parametrize("source", ["auto", "omniglot"])
def test_a_root_that_does_not_exist_or_is_empty_is_an_error(source, tmp_path):
    with pytest.raises(ConfigError, match=r"task\.root: there is no folder .*nowhere"):
        characters.resolve(source, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no Omniglot"):
        characters.resolve(source, str(tmp_path))
