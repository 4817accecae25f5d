"""Loggers of runs that go on in their own folder."""

from __future__ import annotations

import csv
from pathlib import Path

from mannlab.training.loggers import Table, TensorBoard


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_rows_of_before_stay_but_for_those_of_later_steps(tmp_path: Path) -> None:
    first = Table(tmp_path)
    for step in (1, 2, 3):
        first.log_metrics({"loss": step / 10}, step)
    first.save()
    second = Table(tmp_path)
    second.go_on(2)
    second.log_metrics({"loss": 0.5, "val": 1.0}, 3)
    second.save()
    assert [(row["step"], row["loss"], row["val"]) for row in rows(tmp_path)] == [
        ("1", "0.1", ""),
        ("2", "0.2", ""),
        ("3", "0.5", "1.0"),
    ]


def test_a_folder_without_a_table_gets_one(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.go_on(2)
    table.log_metrics({"loss": 0.5}, 3)
    table.save()
    assert [row["step"] for row in rows(tmp_path)] == ["3"]


def test_curves_do_not_go_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step, going_on in ((3, False), (2, True)):
        logger = TensorBoard(tmp_path)
        if going_on:
            logger.go_on(1)
        for at in range(1 + going_on, step + 1):
            logger.log_metrics({"loss": at + going_on / 2}, at)
        logger.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 1.0), (2, 2.5)]
