"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from mannlab.files import read_json, replacing, write_json


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(text)
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["x"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_or_not_at_all(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x").write_text("before")
    with suppress(error), replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "x").read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


def test_others_may_read_it_as_they_may_any_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "x") as temporary:
        temporary.touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "x")}
    assert len(modes) == 1


def test_threads_are_not_in_each_others_way(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with replacing(tmp_path / "x") as temporary:
            temporary.write_text(str(number) * 10_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(1, 9)))
    assert len(set((tmp_path / "x").read_text())) == 1


def test_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path, content = tmp_path / "made" / "a.json", {"name": "é", "sizes": [1, 2]}
    write_json(path, content)
    assert "é" in path.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(path, {"name": object()})
    assert read_json(path) == content
    assert os.listdir(path.parent) == ["a.json"]
