"""The page: what is on it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from mannlab.report import charts, groups, runs
from mannlab.report.page import colour_indices
from tests.report import making
from tests.report.making import EVIL, page_of

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


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


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
