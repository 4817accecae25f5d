"""The page: what is on it, and what a browser makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mannlab.report import charts, groups, runs
from mannlab.report.page import Page, colour_indices
from tests.report import making

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "<img src=https://example.org/x onerror=alert(1)>\"'</script><script>alert(2)</script>"
VOID = {"meta", "link", "img", "input", "br"}


class Reader(HTMLParser):
    """Tags must close in order; text, attributes and scripts are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path, *by: str) -> str:
    return Page(groups.sections(runs.collect([folder]), by), ["outputs"]).html()


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Two groups with seeds and pictures, a failure, a running run, and another task."""
    for name in ("lstm", "gru"):
        for seed in (1, 2, 3):
            making.run(
                tmp_path / "sweep" / f"{name}-{seed}",
                seed * (2.0 if name == "gru" else 0.01),
                seed,
                {"controller__name": name},
                curve=[9.0, 4.0 / seed, 0.02 * seed],
                pictures=["test_stream"],
            )
    making.run(tmp_path / "failed", 9.0, 4, {"controller__name": "gru"}, status="failed", error=EVIL)
    making.run(tmp_path / "running", None, 5, {"controller__name": "gru"}, curve=[5.0])
    making.run(tmp_path / "other", 1.0, 1, {"task": {"name": "recall"}}, curve=None)
    return tmp_path


def test_everything_is_on_the_page(some: Path) -> None:
    reader = read(page_of(some))
    for words in (
        "3 of 5 (1 failed, 1 running)",
        "bit errors ↓",
        "recall",
        "sequences seen",
        "seconds since the start",
        "trained up to 20",
        "length",
        "python -m mannlab seed=3",
        "python -m mannlab report outputs",
        "These runs have logged none.",
        "one run a group: no confidence intervals",
        "no summary yet",
    ):
        assert words in reader.text, words
    assert sum(tag == "img" for tag, _ in reader.tags) == 2


def test_names_and_errors_are_text(tmp_path: Path) -> None:
    making.run(
        tmp_path / "a",
        1.0,
        changed={"controller__name": EVIL, "task__name": EVIL},
        status="failed",
        error=EVIL,
        task_label=EVIL,
        overrides=[EVIL],
    )
    making.run(tmp_path / "b", 2.0, changed={"controller__name": EVIL, "memory__name": EVIL}, seed=EVIL)  # type: ignore[arg-type]
    making.run(tmp_path / "c", 2.0, changed={"controller__name": EVIL, "memory__name": EVIL}, status=EVIL)
    reader = read(page_of(tmp_path))
    assert EVIL in reader.text
    assert not any(tag == "img" for tag, _ in reader.tags)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert not any(key.startswith("on") for _, attrs in reader.tags for key in attrs)


def test_nothing_is_fetched_from_elsewhere(some: Path) -> None:
    for tag, attrs in read(page_of(some)).tags:
        for key in ("src", "href", "srcset", "data", "action"):
            if attrs.get(key):
                assert str(attrs[key]).startswith(("data:", "#")), (tag, attrs)
    styles = re.search(r"<style>(.*?)</style>", page_of(some), re.DOTALL)
    assert styles is not None
    assert not re.search(r"@import|url\(", styles[1])


def test_runs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken = making.run(tmp_path / "broken")
    (broken / "config.yaml").write_text("")
    (broken / "summary.json").write_text("")
    text = read(page_of(tmp_path)).text
    assert "Runs that could not be read" in text
    assert str(broken) in text


def test_a_page_of_unfinished_runs(tmp_path: Path) -> None:
    making.run(tmp_path / "a", None)
    making.run(tmp_path / "b", None, 2, curve=None)
    assert "Learning curves" in read(page_of(tmp_path)).text


def test_a_csv_log_has_no_times(tmp_path: Path) -> None:
    folder = making.run(tmp_path / "a", curve=None)
    (folder / "metrics.csv").write_text("step,val/bit_errors\n10,3\n20,2\n")
    assert "does not say when" in read(page_of(tmp_path)).text


def test_a_group_has_one_colour_in_all_tasks(some: Path) -> None:
    making.run(some / "another", 1.0, 1, {"task": {"name": "sort"}, "controller__name": "gru"}, curve=None)
    making.run(some / "yet", 1.0, 1, {"task": {"name": "sort"}, "controller__name": "aaa"}, curve=None)
    found = groups.sections(runs.collect([some]))
    copy, _, sort = colour_indices(found)
    assert copy == {"gru": 0, "lstm": 1}
    assert sort == {"gru": 0, "aaa": 1}


def test_charts_show_the_best_of_many_groups(tmp_path: Path) -> None:
    for slots in range(1, 16):
        making.run(tmp_path / f"{slots}", float(slots % 15), changed={"memory__slots": slots}, curve=None)
    (section,) = groups.sections(runs.collect([tmp_path]))
    shown = [group.label for group in charts.shown_groups(section)]
    assert len(shown) == charts.MOST_GROUPS
    assert "slots=15" in shown
    assert "slots=14" not in shown
    text = page_of(tmp_path)
    assert "slots=14" in text
    assert f"the best {charts.MOST_GROUPS} groups" in text


# ---------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as program:
        started = program.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


class Tab:
    """A page in a browser, and what it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, **how: Any) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(path.as_uri())

    def style(self, what: str, key: str) -> Any:
        return self.page.eval_on_selector(what, f"node => getComputedStyle(node).{key}")


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def written(some: Path) -> Path:
    path = some / "report.html"
    path.write_text(page_of(some), encoding="utf-8")
    return path


@pytest.mark.parametrize("how", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain"])
def test_groups_show_nothing_leaves_and_nothing_overflows(
    browser: Any, written: Path, how: dict[str, Any], scripts: bool
) -> None:
    tab = Tab(browser, written, java_script_enabled=scripts, **how)
    for name in ("gru", "lstm"):
        assert tab.page.locator("tbody td", has_text=name).first.is_visible()
    assert tab.page.locator("svg.plot:visible").count() >= 4
    assert [url for url in tab.asked if not url.startswith(("file:", "data:"))] == []
    assert tab.said == []
    if scripts:
        for details in tab.page.locator("details").all():
            details.evaluate("node => { node.open = true }")
        wide = tab.page.evaluate(
            "() => [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
        )
        assert max(wide[:2]) <= wide[2] == how["viewport"]["width"]
    tab.context.close()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain"])
def test_the_theme_follows_the_system_and_the_switch(browser: Any, written: Path, scripts: bool) -> None:
    dark, light = "rgb(18, 22, 28)", "rgb(255, 255, 255)"
    for system, shown in (("dark", dark), ("light", light)):
        tab = Tab(browser, written, color_scheme=system, java_script_enabled=scripts, **DESK)
        assert tab.style("body", "backgroundColor") == shown
        tab.page.get_by_text("dark", exact=True).click()
        assert tab.style("body", "backgroundColor") == dark
        tab.page.get_by_text("light", exact=True).click()
        assert tab.style("body", "backgroundColor") == light
        tab.context.close()


def test_axes_can_be_switched_without_scripts(browser: Any, written: Path) -> None:
    tab = Tab(browser, written, java_script_enabled=False, **DESK)
    curves = tab.page.locator(".curves").first

    def labels() -> set[str]:
        return {text for text in curves.locator("svg:visible text").all_text_contents() if "se" in text}

    assert labels() == {"sequences seen"}
    curves.get_by_text("time", exact=True).click()
    assert labels() == {"seconds since the start"}
    before = curves.locator("svg.plot:visible").first.get_attribute("data-plot")
    curves.get_by_text("logarithmic", exact=True).click()
    assert curves.locator("svg.plot:visible").first.get_attribute("data-plot") != before
    tab.context.close()


def test_tables_are_sorted_by_their_heads(browser: Any, written: Path) -> None:
    tab = Tab(browser, written, **DESK)
    head = tab.page.locator("table").first.locator("th", has_text="bit errors")

    def column() -> list[str]:
        return [
            text.strip()
            for text in tab.page.locator("table").first.locator("tbody td:first-child").all_text_contents()
        ]

    head.get_by_role("button").click()
    assert column() == ["lstm", "gru"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert column() == ["gru", "lstm"]
    tab.context.close()


def test_pointing_at_a_chart_shows_its_values(browser: Any, written: Path) -> None:
    tab = Tab(browser, written, **DESK)
    tip = tab.page.locator("#tip")
    assert not tip.is_visible()
    tab.page.locator(".curves svg.plot:visible").first.hover(position={"x": 330, "y": 80})
    assert tip.is_visible()
    text = tip.inner_text()
    assert "1,200 sequences seen" in text
    assert "lstm" in text
    assert "3 runs" in text
    tab.page.locator("[data-tip]").first.hover()
    assert tip.inner_text() == "gru: 4 ± 5, 3 runs"
    tab.context.close()


def test_names_are_not_run(browser: Any, tmp_path: Path) -> None:
    making.run(
        tmp_path / "a", 1.0, changed={"controller__name": EVIL}, error=EVIL, overrides=[EVIL], task_label=EVIL
    )
    path = tmp_path / "report.html"
    path.write_text(page_of(tmp_path, "controller"), encoding="utf-8")
    tab = Tab(browser, path, **DESK)
    tab.page.locator("svg.plot:visible").first.hover()
    tab.page.locator("[data-tip]").first.hover()
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith(("file:", "data:"))] == []
    tab.context.close()
