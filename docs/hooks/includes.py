"""Parts of the documents at the root of the checkout shown on pages, and links that lead out of docs/.

``<!-- include: README.md -->`` is a whole document, ``<!-- include: docs/results.md#Copy -->`` what stands
below a heading.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r"^<!-- include: (\S+?)(?:#(.+?))? -->$", flags=re.MULTILINE)
# A link, or code, in which nothing is one.
LINK = re.compile(
    r"(?P<code>^```.*?^```|``.+?``|`[^`\n]+`)|(?<!!)\[(?P<words>(?:[^\[\]`]|`[^`\n]*`|\[[^\]]*\])*)\]\((?P<to>[^)\s]+)\)",
    flags=re.MULTILINE | re.DOTALL,
)
# Documents that have a page of their own here.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Includes put in, links brought to pages of the site."""
    where = page.file.src_uri

    def included(match: re.Match[str]) -> str:
        source, heading = match.groups()
        text = (ROOT / source).read_text(encoding="utf-8")
        if heading:
            text = section(text, heading, source)
        return relinked(text, PurePosixPath(source).parent, where)

    return INCLUDE.sub(included, relinked(markdown, PurePosixPath("docs", where).parent, where))


def section(text: str, heading: str, source: str) -> str:
    """What stands below a heading, up to the next of its level."""
    blocks = re.split(r"^(## .+)$", text, flags=re.MULTILINE)
    for title, block in zip(blocks[1::2], blocks[2::2], strict=True):
        if title == f"## {heading}":
            return block.strip() + "\n"
    raise PluginError(f"{source} has no part '## {heading}' any more: a page of docs/ includes it.")


def relinked(text: str, folder: PurePosixPath, where: str) -> str:
    """``text`` from ``folder`` of the checkout with links that hold on page ``where``; outside code."""

    def link(match: re.Match[str]) -> str:
        words, target = match["words"], match["to"]
        if match["code"] or re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = normpath((folder / path).as_posix())
        page = page_of(path)
        if page is None:
            return words if words.strip("`") == path else f"{words} (`{path}`)"
        to = relpath(page, PurePosixPath(where).parent.as_posix())
        return f"[{words}]({to}{'#' + anchor if anchor else ''})"

    return LINK.sub(link, text)


def page_of(path: str) -> str | None:
    """The page that shows a file of the checkout, from docs/; None: there is none."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".py"):
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
            if re.search(rf"^::: {re.escape(module)}$", page.read_text(encoding="utf-8"), re.MULTILINE):
                return f"reference/{page.name}"
    return None
