"""The report as text."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from mannlab.report import groups, runs, tables
from mannlab.report.groups import Section
from tests.report import making


@pytest.fixture
def found(tmp_path: Path) -> list[Section]:
    """Two controllers, of which one has three seeds and a failure."""
    for seed, value in ((1, 1.0), (2, 2.0), (3, 3.0)):
        making.run(tmp_path / f"lstm-{seed}", value, seed, curve=None)
    making.run(tmp_path / "lstm-4", 9.0, 4, status="failed", error="ValueError: [bold]x[/] | y", curve=None)
    making.run(
        tmp_path / "gru",
        8.0,
        changed={"controller__name": "gru|<b>"},
        curve=None,
        sequences_until_solved=1200,
    )
    return groups.sections(runs.collect([tmp_path]))


def printed(found: list[Section]) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    tables.show(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_of_the_terminal(found: list[Section]) -> None:
    page = printed(found)
    lstm = next(line for line in page.splitlines() if line.startswith("lstm"))
    # The half width is 4.303 / sqrt(3).
    assert lstm.split() == (
        "lstm 3 of 4 (1 failed) 2 ± 2.5 4 ± 5 0 of 3 1,000 12.5 s".split()  # noqa: SIM905
    )
    gru = next(line for line in page.splitlines() if line.startswith("gru"))
    assert gru.split() == "gru|<b> 1 8 16 1 of 1, at 1,200 1,000 12.5 s".split()  # noqa: SIM905
    assert "bit errors ↓" in page
    assert "failed: " in page
    assert "ValueError: [bold]x[/] | y" in page
    assert "one run has none" in page


def test_only_a_part_of_many_troubles_is_printed(tmp_path: Path) -> None:
    for seed in range(12):
        making.run(tmp_path / f"{seed}", 1.0, seed, status="interrupted", curve=None)
    page = printed(groups.sections(runs.collect([tmp_path])))
    assert page.count("interrupted: ") == 8
    assert "and 4 more" in page
    assert "confidence" not in page


def test_markdown_is_escaped(found: list[Section]) -> None:
    text = tables.markdown(found)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert rows[2].startswith(r"| gru\|\<b\> | 1 | 8 | 16 |")
    assert "| **2 ± 2.5** |" in rows[3]
    assert r"ValueError: \[bold\]x\[/\] \| y" in text


def test_csv_has_a_line_for_each_group_and_metric(found: list[Section]) -> None:
    lines = list(csv.DictReader(io.StringIO(tables.comma_separated(found))))
    names = [
        "test/bit_errors",
        "test/cost_bits",
        *(f"test_length_{size}/bit_errors" for size in making.SIZES),
    ]
    assert [line["metric"] for line in lines] == names * 2
    lstm = lines[5]
    assert (lstm["task"], lstm["controller"], lstm["runs"], lstm["measured"]) == ("copy", "lstm", "3", "3")
    assert float(lstm["mean"]) == 2.0
    assert float(lstm["ci95_high"]) == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)
    assert (lstm["lowest"], lstm["highest"], lstm["direction"]) == ("1.0", "3.0", "min")
    assert lines[0]["ci95_low"] == ""
    assert lines[0]["sequences_until_solved"] == "1200.0"


def test_json_holds_groups_and_runs(found: list[Section]) -> None:
    (task,) = json.loads(tables.as_json(found))["tasks"]
    assert (task["task"], task["by"], task["objective"]) == (
        "copy",
        ["controller"],
        {"metric": "cost_bits", "mode": "min"},
    )
    gru, lstm = task["groups"]
    assert lstm["values"] == {"controller": "lstm"}
    assert lstm["metrics"]["test/bit_errors"]["values"] == [1.0, 2.0, 3.0]
    assert gru["metrics"]["test/bit_errors"]["ci95"] is None
    assert [run["counted"] for run in lstm["runs"]] == [True, True, True, False]
    assert lstm["runs"][3]["problem"].startswith("ValueError")
    assert lstm["runs"][0]["command"] == "python -m mannlab seed=1"


def test_files_hold_the_metrics_that_were_named(tmp_path: Path) -> None:
    making.run(tmp_path / "a", curve=None)
    found = groups.sections(runs.collect([tmp_path]), metrics=["cost_bits"])
    lines = list(csv.DictReader(io.StringIO(tables.comma_separated(found))))
    assert [line["metric"] for line in lines] == ["test/cost_bits"]


def test_a_metric_that_some_have_not_measured(tmp_path: Path) -> None:
    making.run(tmp_path / "a", 1.0, 1, curve=None)
    making.run(tmp_path / "b", 1.0, 2, curve=None, metrics={"test/cost_bits": 4.0})
    assert "1 (1 measured)" in printed(groups.sections(runs.collect([tmp_path])))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (138.7, "138.7"), (12345.6, "12,346"), (1.5e-7, "1.5e-07"), (None, ""), (math.nan, "")],
)
def test_numbers_for_people(value: float | None, text: str) -> None:
    assert tables.number(value) == text


def test_durations_and_metrics_for_people() -> None:
    assert [tables.duration(s) for s in (5.25, 90, 7200, 200_000, None)] == [
        "5.25 s",
        "1.5 min",
        "2 h",
        "2.31 d",
        "",
    ]
    assert tables.words("test_length_30/bit_errors") == "bit errors, test length 30"
