"""Pictures that travel inside the page."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

from PIL import Image

from mannlab.report import groups, pictures, runs
from tests.report import making


def test_pictures_are_made_small(tmp_path: Path) -> None:
    path = tmp_path / "test_stream.png"
    Image.new("RGB", (1800, 400), "white").save(path)
    found = pictures.shrunk(path)
    assert found is not None
    assert (found.title, found.width, found.height) == ("test stream", 900, 200)
    image = Image.open(io.BytesIO(base64.b64decode(found.address.partition(",")[2])))
    assert (image.format, image.size, image.mode) == ("PNG", (900, 200), "P")


def test_broken_pictures_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    assert pictures.shrunk(tmp_path / "a.png") is None
    assert pictures.shrunk(tmp_path / "missing.png") is None


def test_the_best_run_shows_its_test(tmp_path: Path) -> None:
    names = ["val_stream", "test_stream", "test_generalisation", "test_memory_usage", "test_length_20_stream"]
    for seed, value in ((1, 3.0), (2, 1.0), (3, 2.0)):
        making.run(tmp_path / f"{seed}", value, seed, pictures=names, curve=None)
    making.run(tmp_path / "4", 0.5, 4, curve=None)
    (section,) = groups.sections(runs.collect([tmp_path]))
    ((album,),) = pictures.albums([section])
    assert album.run.seed == 2
    assert [each.title for each in album.pictures] == [
        "test memory usage",
        "test stream",
        "test length 20 stream",
    ]
    assert album.left_out == 0
    section.mode = "max"
    assert pictures.albums([section])[0][0].run.seed == 1


def test_every_group_gets_its_first_picture_first(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b")):
        folder = making.run(tmp_path / name, changed={"memory__slots": index}, pictures=["x"], curve=None)
        noise = random.Random(index).randbytes(120 * 120 * 3)
        for title in ("test_stream", "test_length_20_stream"):
            Image.frombytes("RGB", (120, 120), noise).save(folder / "pictures" / f"{title}.png")
    found = groups.sections(runs.collect([tmp_path]))
    one = pictures.shrunk(tmp_path / "a" / "pictures" / "test_stream.png")
    assert one is not None
    (albums,) = pictures.albums(found, room=int(2.5 * len(one.address)))
    assert [[each.title for each in album.pictures] for album in albums] == [["test stream"], ["test stream"]]
    assert [album.left_out for album in albums] == [1, 1]


def test_runs_without_pictures_have_no_album(tmp_path: Path) -> None:
    making.run(tmp_path / "a", curve=None)
    assert pictures.albums(groups.sections(runs.collect([tmp_path]))) == [[]]
