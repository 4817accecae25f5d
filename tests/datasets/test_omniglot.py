"""Omniglot: every layout that people have on disk, what is wrong with a broken one, and the download."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from mannlab.datasets import omniglot
from mannlab.errors import DataError

PARTS = {"images_background": (("Greek", 2), ("Latin", 1)), "images_evaluation": (("Tengwar", 2),)}


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """Three and two characters instead of 964 and 659; a cache of this test's own; no proxy."""
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 3, "images_evaluation": 2})
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


def png(seed):
    """A 1-bit picture of 105 pixels: black ink on white, in its upper left quarter."""
    pixels = np.full((105, 105), 255, np.uint8)
    pixels[10:40, 10 + seed : 20 + seed] = 0
    data = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(data, "PNG")
    return data.getvalue()


def files(part):
    for alphabet, characters in PARTS[part]:
        for character in range(characters):
            for drawing in range(20):
                yield f"{part}/{alphabet}/character{character + 1:02}/{drawing + 1:04}.png", png(drawing)


def tree(folder, part):
    for name, data in files(part):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def archive(folder, part):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{part}.zip", "w") as opened:
        for name, data in files(part):
            opened.writestr(name, data)
        opened.writestr(f"__MACOSX/{part}/Greek/character01/._0001.png", b"litter")


@pytest.mark.parametrize("layout", [tree, archive])
@pytest.mark.parametrize("inner", ["", "omniglot", "omniglot-py"])
def test_every_layout_is_read(tmp_path, layout, inner):
    for part in PARTS:
        layout(tmp_path / "data" / inner, part)
    folder = omniglot.find(tmp_path / "data")
    assert folder == tmp_path / "data" / inner
    drawings = omniglot.load(folder, 40)
    assert drawings.images.shape == (5, 20, 40, 40)
    assert drawings.names == [
        "Greek/character01",
        "Greek/character02",
        "Latin/character01",
        "Tengwar/character01",
        "Tengwar/character02",
    ]
    assert drawings.held_out.tolist() == [False, False, False, True, True]


def test_ink_is_255_and_the_picture_is_upright(tmp_path):
    picture = omniglot.decode(png(0), 40)
    assert picture[:20, :20].max() == 255
    assert picture[20:].max() == picture[:, 20:].max() == 0
    ink = picture.sum() / 255 * (105 / 40) ** 2
    assert ink == pytest.approx(30 * 10, rel=0.03), "making it small keeps the ink"


def test_drawings_keep_their_order(tmp_path):
    for part in PARTS:
        tree(tmp_path, part)
    images = omniglot.load(tmp_path, 40).images[0].astype(float)
    centres = (images * np.arange(40)).sum((1, 2)) / images.sum((1, 2))
    assert (np.diff(centres) > 0).all()


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert omniglot.find(tmp_path) is None
    assert omniglot.find(tmp_path / "nowhere") is None


def test_the_second_time_comes_from_the_cache(tmp_path, monkeypatch):
    for part in PARTS:
        archive(tmp_path, part)
    first = omniglot.load(tmp_path, 40)
    monkeypatch.setattr(omniglot, "read", None)
    assert np.array_equal(omniglot.load(tmp_path, 40).images, first.images)


def test_changed_files_are_read_again(tmp_path):
    for part in PARTS:
        archive(tmp_path, part)
    omniglot.load(tmp_path, 40)
    (tmp_path / "images_evaluation.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError):
        omniglot.load(tmp_path, 40)


def test_a_missing_part_is_named(tmp_path):
    archive(tmp_path, "images_background")
    with pytest.raises(DataError, match=r"lacks its part images_evaluation(.|\n)*images_evaluation\.zip"):
        omniglot.load(tmp_path, 40)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_a_zip_cut_short_is_named(tmp_path, kept):
    for part in PARTS:
        archive(tmp_path, part)
    path = tmp_path / "images_evaluation.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=r"images_evaluation\.zip is damaged(.|\n)*brendenlake/omniglot"):
        omniglot.load(tmp_path, 40)


def test_a_byte_changed_inside_a_zip_is_found(tmp_path):
    for part in PARTS:
        archive(tmp_path, part)
    path = tmp_path / "images_background.zip"
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 6] ^= 255
    path.write_bytes(bytes(whole))
    with pytest.raises(DataError, match=r"images_background\.zip is damaged"):
        omniglot.load(tmp_path, 40)


def test_a_missing_character_and_a_missing_drawing_are_counted(tmp_path):
    for part in PARTS:
        tree(tmp_path, part)
    character = tmp_path / "images_background" / "Latin" / "character01"
    (character / "0007.png").unlink()
    with pytest.raises(DataError, match="holds 19 drawings of Latin/character01, not 20"):
        omniglot.load(tmp_path, 40)
    for path in character.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="images_background holds 2 characters, not 3"):
        omniglot.load(tmp_path, 40)


def test_a_picture_that_is_none_is_named(tmp_path):
    for part in PARTS:
        tree(tmp_path, part)
    (tmp_path / "images_evaluation" / "Tengwar" / "character02" / "0003.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="drawing 3 of Tengwar/character02"):
        omniglot.load(tmp_path, 40)


@pytest.mark.parametrize("broken", ["tree", "zip"])
def test_of_folder_and_zip_the_whole_one_serves(tmp_path, broken):
    for part in PARTS:
        tree(tmp_path, part)
        archive(tmp_path, part)
    if broken == "zip":
        (tmp_path / "images_background.zip").write_bytes(b"half of it")
    else:
        (tmp_path / "images_background" / "Greek" / "character01" / "0001.png").unlink()
    assert len(omniglot.load(tmp_path, 40).names) == 5


# ---------------------------------------------------------------------- download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine that has the two archives; torchvision is told their checksums."""
    from torchvision.datasets import Omniglot

    home = tmp_path / "server"
    for part in PARTS:
        archive(home, part)
    sums = {part: hashlib.md5((home / f"{part}.zip").read_bytes()).hexdigest() for part in PARTS}
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home)))
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(Omniglot, "download_url_prefix", f"http://127.0.0.1:{web.server_port}")
    monkeypatch.setattr(Omniglot, "zips_md5", sums)
    monkeypatch.delenv("MANNLAB_OFFLINE", raising=False)
    yield home
    web.shutdown()
    web.server_close()
    thread.join()


def leftovers(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*"))


def test_the_download_lands_in_the_cache_and_is_read(server, tmp_path):
    folder = omniglot.download()
    assert leftovers(tmp_path) == ["images_background.zip", "images_evaluation.zip", "omniglot"]
    assert omniglot.find(tmp_path / "cache") == folder
    assert omniglot.complete(folder)
    assert len(omniglot.load(folder, 40).names) == 5


def test_a_wrong_checksum_is_refused(server, tmp_path):
    path = server / "images_evaluation.zip"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DataError, match=r"could not be fetched(.|\n)*task\.source=glyphs"):
        omniglot.download()
    assert leftovers(tmp_path) == ["omniglot"], "nothing of it stays"


def test_a_server_that_lacks_the_file_is_an_error(server):
    (server / "images_background.zip").unlink()
    with pytest.raises(DataError, match="404"):
        omniglot.download()


def test_no_server_is_an_error(server, monkeypatch):
    from torchvision.datasets import Omniglot

    monkeypatch.setattr(Omniglot, "download_url_prefix", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"could not be fetched from http://127\.0\.0\.1:9"):
        omniglot.download()


def test_offline_asks_no_server(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MANNLAB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"MANNLAB_OFFLINE=1(.|\n)*MANNLAB_DATA"):
        omniglot.download()
    assert not (tmp_path / "cache").exists()
