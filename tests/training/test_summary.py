from __future__ import annotations

import io
import json
import logging
import math
import shlex
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mannlab.registry import build
from mannlab.training.checkpoints import WriteError
from mannlab.training.summary import (
    folded,
    log_results,
    plain,
    print_results,
    repeat_command,
    results_table,
    versions,
    write_json,
)


def test_json_is_valid_whatever_the_numbers(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [math.inf, 1.5], "c": torch.tensor(2), "d": Path("x"), "e": (True, None)}
    write_json(tmp_path / "s.json", content)
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "a": None,
        "b": [None, 1.5],
        "c": 2,
        "d": "x",
        "e": [True, None],
    }


def test_an_unwritable_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="Cannot write"):
        write_json(tmp_path / "file" / "s.json", {})


def test_plain_keeps_text_and_booleans() -> None:
    assert plain({"x": True, 1: "y"}) == {"x": True, "1": "y"}


def test_table_has_a_row_a_split_and_the_main_metric_first() -> None:
    task = build("task", "copy", lengths=[30])
    metrics = {
        "test/loss_nats": 1.0,
        "test/bit_errors_per_sequence": 0.25,
        "test_length_30/loss_nats": 2.0,
        "test_length_30/bit_errors_per_sequence": 0.5,
    }
    table = results_table(task, metrics)
    assert table is not None
    assert [str(column.header) for column in table.columns] == [
        "test",
        "bit errors per sequence",
        "loss nats",
    ]
    out = io.StringIO()
    summary = {"metrics": metrics, "status": "solved", "steps": 5, "sequences": 80, "wall_seconds": 1.0}
    print_results(
        task,
        summary | {"sequences_until_solved": 64},
        Path("/x/outputs/copy/run"),
        Console(file=out, width=120),
    )
    text = out.getvalue()
    assert "length 30" in text
    assert "0.25" in text
    assert "tensorboard --logdir /x/outputs\n" in text
    assert "solved at 64" in text


def test_nothing_measured_gives_no_table() -> None:
    assert results_table(build("task", "copy"), {}) is None


def test_what_was_not_counted_is_left_blank() -> None:
    task = build("task", "omniglot", source="glyphs")
    metrics = {f"test/accuracy_{n}_percent": n for n in range(6)} | {"test/accuracy_6_percent": math.nan}
    table = results_table(task, metrics)
    assert table is not None
    assert list(table.columns[1].cells) == ["0", "1", "2", "3", "4", "5", ""]


def test_tables_for_files_are_wide(capsys: pytest.CaptureFixture[str]) -> None:
    task = build("task", "copy", lengths=list(range(21, 29)))
    metrics = {
        f"{split.stream}/a_long_name_of_metric_{n}": 1.0 for split in task.splits("test") for n in range(6)
    }
    print_results(task, {"metrics": metrics}, None)
    assert "a long name of metric 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        ("interrupted", None, True),
        ("interrupted", "KeyboardInterrupt: stopped at once", True),
        ("interrupted", "Interrupted: Stopped during the test.", False),
        ("completed", None, False),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, error: str | None, said: bool
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    summary = {
        "metrics": {},
        "status": status,
        "steps": 3,
        "sequences": 12,
        "wall_seconds": 1,
        "error": error,
    }
    print_results(build("task", "copy"), summary, tmp_path)
    assert (f"ckpt_path={tmp_path}" in capsys.readouterr().out) is said


@pytest.mark.parametrize(("by", "said"), [("trainer.max_time", True), ("trainer.max_steps", False)])
def test_a_run_whose_time_was_up_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str, said: bool
) -> None:
    summary = {"metrics": {}, "status": "completed", "steps": 3, "sequences": 12, "wall_seconds": 1}
    print_results(build("task", "copy"), {**summary, "stopped_by": by}, tmp_path)
    assert ("stopped: trainer.max_time" in capsys.readouterr().out) is said


def test_versions_name_what_matters() -> None:
    assert {"python", "mannlab", "torch", "lightning"} <= set(versions())


@pytest.mark.parametrize(
    ("task", "options", "label"),
    [
        ("copy", {"max_length": 20, "lengths": [30]}, "as trained: length to 20"),
        ("copy", {"max_length": 20, "lengths": [30], "curriculum": True}, "length to 20"),
        ("copy", {"max_length": 6, "lengths": []}, "as trained: size to 6"),
        ("repeat_copy", {"max_length": 7, "max_repeats": 5}, "as trained: length to 7, repeats to 5"),
    ],
)
def test_the_main_set_says_which_sizes_it_has(task: str, options: dict[str, object], label: str) -> None:
    made = build("task", task, **options)
    name = made.objective.metric
    table = results_table(made, {f"test/{name}": 1.0})
    assert table is not None
    assert list(table.columns[0].cells) == [label]


def test_the_log_ends_with_every_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = {"test/bit_errors_per_sequence": 0.25, "val_memory/erase_percent": 40.0}
    summary = {"status": "completed", "metrics": metrics, "steps": 3, "sequences": 12, "wall_seconds": 1}
    with caplog.at_level(logging.INFO, logger="mannlab"):
        log_results(build("task", "copy"), summary, tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-2:] == ["test/bit_errors_per_sequence 0.25", "val_memory/erase_percent 40"]
    assert any(line.startswith("finished after 3 steps") for line in lines)
    assert all(record.file_only for record in caplog.records)  # type: ignore[attr-defined]


def test_the_command_repeats_the_run() -> None:
    assert repeat_command({"seed": 1}) is None
    command = repeat_command({"seed": 4, "overrides": ["task=copy", "task.lengths=[1, 2]"]})
    assert command == "python -m mannlab task=copy 'task.lengths=[1, 2]' seed=4"
    assert repeat_command({"seed": 4, "overrides": ["seed=4"]}) == "python -m mannlab seed=4"
    long = repeat_command({"overrides": [f"task.option_{n}='a b'" for n in range(20)]})
    assert long is not None
    assert max(map(len, folded(long).splitlines())) < 110
    assert shlex.split(folded(long).replace("\\\n", "")) == shlex.split(long)
