"""Multi30k: found on disk, or fetched with its checksums."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from functools import partial
from http.client import IncompleteRead
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mannlab.datasets import multi30k
from mannlab.datasets.parallel import Faults, read_pairs
from mannlab.errors import DataError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine that has all parts, of two lines each."""
    home = tmp_path / "server"
    home.mkdir()
    sums = {}
    for name in multi30k.SHA256:
        text = f"one {name}\ntwo\n".encode()
        (home / f"{name}.gz").write_bytes(gzip.compress(text))
        sums[name] = hashlib.sha256(text).hexdigest()
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home)))
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(multi30k, "URL", f"http://127.0.0.1:{web.server_port}")
    monkeypatch.setattr(multi30k, "SHA256", sums)
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
    folder = multi30k.download()
    assert multi30k.find(tmp_path / "cache") == folder
    assert len(leftovers(tmp_path)) == 1 + len(multi30k.SHA256)
    files = [multi30k.file(folder, "val", language) for language in ("en", "de")]
    assert read_pairs(files, Faults("raise")).targets == ["one val.de", "two"]


def test_a_wrong_checksum_is_refused(server, tmp_path):
    (server / "val.de.gz").write_bytes(gzip.compress(b"three\n"))
    with pytest.raises(DataError, match=r"val\.de\.gz has another checksum(.|\n)*task\.source=numbers"):
        multi30k.download()
    assert leftovers(tmp_path) == ["multi30k"], "nothing of it stays"


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"word " * 99)[:20], None], ids=["no gzip", "cut", "missing"]
)
def test_broken_and_missing_files_are_errors(server, content):
    path = server / "train.en.gz"
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(DataError, match="could not be fetched"):
        multi30k.download()


def test_an_answer_that_breaks_off_is_an_error(server, monkeypatch):
    def cut(*arguments, **options):
        raise IncompleteRead(b"half", 100)

    monkeypatch.setattr(multi30k.urllib.request, "urlopen", cut)
    with pytest.raises(DataError, match="could not be fetched"):
        multi30k.download()


def test_no_server_and_no_permission_are_errors(server, tmp_path, monkeypatch):
    monkeypatch.setattr(multi30k, "URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"could not be fetched from http://127\.0\.0\.1:9"):
        multi30k.download()
    monkeypatch.setenv("MANNLAB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"MANNLAB_OFFLINE=1(.|\n)*MANNLAB_DATA"):
        multi30k.download()


@pytest.mark.skipif("MANNLAB_DATA" not in os.environ, reason="MANNLAB_DATA names no folder of real data")
def test_the_real_data_has_these_checksums():
    folder = multi30k.find(Path(os.environ["MANNLAB_DATA"]))
    if folder is None:
        pytest.skip("MANNLAB_DATA holds no Multi30k")
    for part, name in multi30k.FILES.items():
        for language in multi30k.LANGUAGES:
            path = multi30k.file(folder, part, language)
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            assert hashlib.sha256(data).hexdigest() == multi30k.SHA256[f"{name}.{language}"]
