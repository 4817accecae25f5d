"""What a browser makes of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report import making
from tests.report.making import EVIL, page_of

pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")


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

    def point(self, what: str, **where: Any) -> None:
        """Put the mouse on something; scrolling there would hide what pointing shows."""
        found = self.page.locator(what).first
        found.scroll_into_view_if_needed()
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        found.hover(**where)

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
    tab.point(".curves svg.plot:visible", position={"x": 330, "y": 80})
    assert tip.is_visible()
    text = tip.inner_text()
    assert "1,200 sequences seen" in text
    assert "lstm" in text
    assert "0.04 (0.02 to 0.06)" in text
    tab.point("[data-tip]")
    assert tip.inner_text() == "gru: 4 ± 5, 3 runs"
    tab.context.close()


def test_names_are_not_run(browser: Any, tmp_path: Path) -> None:
    making.run(
        tmp_path / "a", 1.0, changed={"controller__name": EVIL}, error=EVIL, overrides=[EVIL], task_label=EVIL
    )
    path = tmp_path / "report.html"
    path.write_text(page_of(tmp_path, "controller"), encoding="utf-8")
    tab = Tab(browser, path, **DESK)
    tab.point("svg.plot:visible")
    tab.point("[data-tip]")
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith(("file:", "data:"))] == []
    tab.context.close()


def test_what_a_finger_shows_stays_until_the_next_touch(browser: Any, written: Path) -> None:
    tab = Tab(browser, written, **PHONE)
    tip = tab.page.locator("#tip")
    chart = tab.page.locator(".curves svg.plot:visible").first
    chart.scroll_into_view_if_needed()
    tab.page.wait_for_timeout(300)
    chart.tap()
    assert tip.is_visible()
    box = tip.bounding_box()
    assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
    tab.page.locator(".curves .legend").first.tap()
    assert not tip.is_visible()
    tab.context.close()
