"""Equations become SVG when the site is built: no script and no font has to be loaded to show them."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from mkdocs.exceptions import PluginError

SPAN = re.compile(r'<(span|div) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', flags=re.DOTALL)
SIZE = 100  # units of the picture to one em
VERBS = {1: ("M", 1), 2: ("L", 1), 3: ("Q", 2), 4: ("C", 3), 79: ("Z", 1)}  # matplotlib's, and their points


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Every equation of a page drawn."""

    def drawn(match: re.Match[str]) -> str:
        tex = html.unescape(match[2]).strip()
        try:
            picture = svg(tex)
        except ValueError as error:
            raise PluginError(f"{page.file.src_uri}: this equation cannot be set: {tex}\n{error}") from error
        kind = "alone" if match[1] == "div" else "within"
        return f'<{match[1]} class="equation {kind}">{picture}</{match[1]}>'

    return SPAN.sub(drawn, content)


@cache
def svg(tex: str) -> str:
    """An equation in matplotlib's subset of TeX as an SVG in the colour and size of the text around it.

    Raises:
        ValueError: it is not in that subset.
    """
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath, text_to_path

    text = f"${tex}$"
    with matplotlib.rc_context({"mathtext.fontset": "cm"}):
        prop = FontProperties(size=SIZE)
        width, height, depth = text_to_path.get_text_width_height_descent(text, prop, ismath=True)
        outline = TextPath((0, 0), text, size=SIZE, prop=prop)
    said = html.escape(tex, quote=True)
    size = f"width:{width / SIZE:.2f}em;height:{height / SIZE:.2f}em;vertical-align:{-depth / SIZE:.2f}em"
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 {depth - height:.0f} {width:.0f} {height:.0f}" '
        f'style="{size}"><title>{said}</title><path d="{drawing(outline.vertices, outline.codes)}"/></svg>'
    )


def drawing(vertices: Any, codes: Any) -> str:
    """An outline in the language of SVG paths; y points down there."""
    parts = []
    at = 0
    while at < len(codes):
        verb, count = VERBS[int(codes[at])]
        points = "" if verb == "Z" else " ".join(f"{x:.0f} {-y:.0f}" for x, y in vertices[at : at + count])
        parts.append(verb + points)
        at += count
    return "".join(parts)
