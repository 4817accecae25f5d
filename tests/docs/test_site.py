"""The built site: it is whole, its links lead somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
# What a browser fetches without being asked to; links that one clicks are not among them.
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "embed": "src"}
LARGEST_PICTURE = 200_000  # bytes


class Reader(HTMLParser):
    """Ids, links and what is loaded."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADING and LOADING[tag] in given:
            self.loaded.append(given[LOADING[tag]])
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(given["href"])


@pytest.fixture
def pages(site: Path) -> dict[Path, Reader]:
    return {path: Reader(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_links_and_anchors_lead_somewhere(pages: dict[Path, Reader]) -> None:
    assert len(pages) > 25
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/\S*)?", link), f"{path.name}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                lost.append(f"{path.name}: {link}")
    assert not lost


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Reader]) -> None:
    for path, page in pages.items():
        remote = [
            link for link in page.loaded if urlsplit(link).scheme not in ("", "data") or link[:2] == "//"
        ]
        assert not remote, f"{path.name}: {remote}"
        # The theme fetches a script for these.
        assert 'class="mermaid"' not in path.read_text(encoding="utf-8")
        for link in page.loaded:
            assert (path.parent / urlsplit(link).path).exists() or link.startswith("data:"), link
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_component_has_a_place(site: Path, pages: dict[Path, Reader]) -> None:
    for path in (ROOT / "conf" / "memory").glob("*.yaml"):
        assert site / "memories" / f"{path.stem}.html" in pages
    for kind in ("task", "controller"):
        ids = pages[site / f"{kind}s.html"].ids
        assert {path.stem for path in (ROOT / "conf" / kind).glob("*.yaml")} <= ids


def test_every_directive_was_understood(pages: dict[Path, Reader]) -> None:
    for path in pages:
        text = path.read_text(encoding="utf-8")
        left = re.findall(
            r"<!-- (?:options|component|remaining|overview|group|keys|usage|include)\b.*-->", text
        )
        assert not left, path.name
        assert not re.search(r"<p>FIG", text), path.name
        assert "arithmatex" not in text, path.name


def test_pictures_are_small_and_all_used(pages: dict[Path, Reader]) -> None:
    used = {Path(link).name for page in pages.values() for link in page.loaded}
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < LARGEST_PICTURE, path.name
        assert path.name in used, path.name
