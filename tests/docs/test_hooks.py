"""What the site's hooks make of pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("mkdocs")
from mkdocs.exceptions import PluginError

from mannlab import registry

Hook = Callable[[str], ModuleType]
Page = Callable[[str], SimpleNamespace]


def made(module: ModuleType, text: str, page: SimpleNamespace) -> str:
    found: str = module.on_page_markdown(text, page=page)
    return found


# ------------------------------------------------------------------ components


@pytest.mark.parametrize(("kind", "name"), [("memory", "dense"), ("task", "omniglot"), ("controller", "gru")])
def test_a_table_has_every_option_with_its_default(hook: Hook, page: Page, kind: str, name: str) -> None:
    text = made(hook("components"), f"<!-- options: {kind}={name} -->", page("x.md"))
    rows = re.findall(rf"^\| <code>{kind}\.(.+?)</code> \| .* \| <code>(.*?)</code> \|", text, re.MULTILINE)
    options = registry.options(registry.get(kind, name))
    assert [key.replace("&#95;", "_") for key, _ in rows] == list(options)
    for key, default in rows:
        value = options[key.replace("&#95;", "_")].default
        if isinstance(value, int) and not isinstance(value, bool):
            assert default == str(value)


def test_what_is_not_there_is_an_error(hook: Hook, page: Page) -> None:
    for directive in ("options: memory=nothing", "usage: nothing", "group: nothing"):
        with pytest.raises(PluginError, match="nothing"):
            made(hook("components"), f"<!-- {directive} -->", page("x.md"))


def test_nothing_in_a_cell_is_markdown(hook: Hook) -> None:
    cell = hook("components").cell
    assert cell("a | b_c_d *e* <f> [g](h)") == ("a &#124; b&#95;c&#95;d &#42;e&#42; &lt;f&gt; &#91;g&#93;(h)")


def test_components_without_a_part_get_one_from_their_docstring(hook: Hook, page: Page) -> None:
    named = ["gru", "lstm", "transformer"]
    text = "\n".join(f"<!-- options: controller={name} -->" for name in named)
    more = made(hook("components"), f"{text}\n\n<!-- remaining: controller -->", page("controllers.md"))
    assert "## feedforward\n" in more
    assert "Layers without a state of their own" in more
    assert "Args:" not in more
    assert not any(f"## {name}\n" in more for name in named)


def test_commands_without_a_part_get_one(hook: Hook, page: Page) -> None:
    more = made(hook("components"), "## train\n\n## eval\n\n<!-- commands -->\n", page("commands.md"))
    assert "## predict\n" in more
    assert more.count("## eval\n") == 1


def test_memories_without_a_page_get_one(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    module = hook("components")
    missing = module.without_page(SimpleNamespace(docs_dir=str(tmp_path)))
    assert "dense" in missing
    config = SimpleNamespace(docs_dir=str(tmp_path), nav=[{"Memories": ["memories/index.md"]}])
    assert {"dense": "memories/dense.md"} in module.on_config(config).nav[0]["Memories"]


# ------------------------------------------------------------------ includes


def test_a_part_of_a_document_is_included(hook: Hook, page: Page) -> None:
    module = hook("includes")
    part = made(module, "<!-- include: docs/results.md#Copy -->", page("memories/dense.md"))
    assert "sequences until solved" in part
    assert "Omniglot" not in part
    with pytest.raises(PluginError, match="Nothing here"):
        made(module, "<!-- include: README.md#Nothing here -->", page("x.md"))


@pytest.mark.parametrize(
    ("place", "written", "shown"),
    [
        ("memories/dense.md", "[a](sparse.md#b)", "[a](sparse.md#b)"),
        ("architecture.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("memories/dense.md", "[a](../../README.md)", "[a](../index.md)"),
        ("architecture.md", "[`a`](../mannlab/contracts/memory.py)", "[`a`](reference/contracts.md)"),
        ("architecture.md", "[a](../LICENSE)", "a (`LICENSE`)"),
        ("architecture.md", "[LICENSE](../LICENSE)", "LICENSE"),
        ("index.md", "`[a](../LICENSE)`", "`[a](../LICENSE)`"),
        ("index.md", "```\n[a](../LICENSE)\n```", "```\n[a](../LICENSE)\n```"),
        ("index.md", "[a](https://b.c/d)", "[a](https://b.c/d)"),
        ("index.md", "![a](images/b.png)", "![a](images/b.png)"),
    ],
)
def test_links_hold_on_the_site(hook: Hook, page: Page, place: str, written: str, shown: str) -> None:
    assert made(hook("includes"), written, page(place)) == shown


# ------------------------------------------------------------------ equations and docstrings


def test_equations_are_drawn(hook: Hook, page: Page) -> None:
    content = r'<p>a <span class="arithmatex">\(w_t &lt; 1\)</span> b</p><div class="arithmatex">\[x\]</div>'
    text = hook("equations").on_page_content(content, page=page("x.md"))
    assert text.count("<svg") == 2
    assert "arithmatex" not in text
    assert 'aria-label="w_t &lt; 1"' in text
    assert not re.search(r'"M?nan|inf', text)
    with pytest.raises(PluginError, match="nosuchsign"):
        hook("equations").on_page_content(r'<div class="arithmatex">\[\nosuchsign\]</div>', page=page("x.md"))


def test_roles_are_taken_out(hook: Hook) -> None:
    plain = hook("roles").plain
    assert plain("See :class:`Memory`, :func:`~a.b` and ``x``.") == "See `Memory`, `a.b` and ``x``."
