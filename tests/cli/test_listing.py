"""``list``."""

from __future__ import annotations

from pathlib import Path

import pytest

from mannlab import registry
from mannlab.__main__ import main
from mannlab.cli import listing


def test_every_component_and_option_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    page = capsys.readouterr().out
    for kind in registry.ROOMS:
        for name in registry.names(kind):
            assert f"{kind}={name}" in page
            for option in registry.options(registry.get(kind, name)):
                assert f"      {option}" in page


def test_one_group_with_types_defaults_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "memory"]) == 0
    page = capsys.readouterr().out
    line = next(line for line in page.splitlines() if line.strip().startswith("slots"))  # of dense
    assert line.split()[:3] == ["slots", "int", "128"]
    assert "rows of the memory" in line
    assert "constant | learned | random" in page
    assert "task=" not in page


def test_any_other_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "optimizer"]) == 0
    page = capsys.readouterr().out
    assert "optimizer=adam  Adam" in page
    assert "[0.9,0.999]" in page


def test_what_lies_in_mappings_is_listed_by_its_whole_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "sweep=optuna"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["sweep.search.trials", "20", "how", "many", "jobs"] in rows
    assert ["sweep.search.space", "{}"] in [row[:2] for row in rows]


def test_plugins_say_where_they_come_from(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "plugin_example"))
    assert main(["list", "memory", "plugins=[mannlab_ring]"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "memory=ring" in line)
    assert line.endswith("(from mannlab_ring)")


def test_a_yaml_of_another_name_shows_its_own_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "big.yaml").write_text("# Many slots\nname: dense\nslots: 1000\n")
    assert main(["list", "memory", "--config-dir", str(tmp_path)]) == 0
    page = capsys.readouterr().out.partition("memory=big")[2].partition("memory=")[0]
    assert page.split()[:5] == ["Many", "slots", "slots", "int", "1000"]


def test_a_yaml_that_cannot_be_read_is_named_and_the_others_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "broken.yaml").write_text("# Broken\nname: [\n")
    assert main(["list", "memory", "--config-dir", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert f"{tmp_path / 'memory' / 'broken.yaml'} cannot be read" in page
    assert "memory=sparse" in page.partition("memory=broken")[2]


def test_an_unknown_group_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "memry"]) == 1
    assert "Did you mean 'memory'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["memory=dnc"], ["dnc"], ["memory", "dnc"]])
def test_one_component(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 0
    page = capsys.readouterr().out
    assert [line.split()[0] for line in page.splitlines() if "=" in line.split(" (")[0][:10]] == [
        "memory=dnc"
    ]
    assert "read_heads" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["memory=dncc"], ["no memory 'dncc'", "Did you mean 'dnc'?"]),
        (["memry=dnc"], ["no group 'memry'", "Did you mean 'memory'?"]),
        (["omniglott"], ["'omniglott'", "Did you mean 'task=omniglot'?"]),
        (["task", "omniglott"], ["no task of that name", "Did you mean 'omniglot'?"]),
        (["memory.slots=3"], ["no group 'memory.slots'"]),
    ],
)
def test_what_is_not_understood_is_refused(
    words: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *words]) == 1
    page = capsys.readouterr().err
    for part in said:
        assert part in page


def test_a_name_in_several_groups_shows_each() -> None:
    known = {"memory": ["none", "dnc"], "scheduler": ["none"]}
    assert listing.understand(["none"], known) == {"memory": ["none"], "scheduler": ["none"]}
    assert listing.understand(["scheduler", "none"], known) == {"scheduler": ["none"]}
    assert listing.understand(["memory"], known) == {"memory": []}


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--help"]) == 0
    assert "usage: mannlab list" in capsys.readouterr().out


def test_values_are_spelt_as_typed() -> None:
    spelt = [listing.spell(value) for value in (None, True, [1, 2], {"a": False}, 0.5, "x")]
    assert spelt == ["null", "true", "[1,2]", "{a: false}", "0.5", "x"]
