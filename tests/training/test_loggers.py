"""Loggers by name: files, and services that may or may not be installed."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from matplotlib.figure import Figure

from mannlab.errors import ConfigError
from mannlab.training import loggers
from mannlab.training.build import instantiate_all
from mannlab.training.loggers import Table, TensorBoard, show_picture, show_text
from mannlab.training.run import train


def made(root: Path, name: str, folder: Path, **changes: Any) -> Any:
    """The logger that ``logger=<name>`` makes."""
    nodes = yaml.safe_load((root / "conf" / "logger" / f"{name}.yaml").read_text())
    nodes[name] |= changes
    (logger,) = instantiate_all(nodes, "logger", save_dir=folder)
    return logger


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_is_not_installed_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=rf"logger={name}: the package {name} is not installed") as caught:
        made(root, name, tmp_path)
    assert f"pip install 'mannlab[{name}]'" in caught.value.hint


class Service:
    """Stands in for a logger's service: keeps what it is told."""

    def __init__(self, *ignored: Any, **given: Any) -> None:
        self.given, self.told = given, []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: self.told.append((name, args, named))


@pytest.mark.parametrize(("banned", "offline"), [("1", True), ("0", False)])
def test_wandb_is_offline_where_networks_are_banned(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, banned: str, offline: bool
) -> None:
    monkeypatch.setenv("MANNLAB_OFFLINE", banned)
    monkeypatch.setattr(loggers, "find_spec", lambda module: module)
    monkeypatch.setattr(loggers, "WandbLogger", Service)
    folder = tmp_path / "run"
    assert made(root, "wandb", folder).given == {
        "name": "run",
        "save_dir": folder,
        "offline": offline,
        "project": "mannlab",
    }
    assert made(root, "wandb", folder, offline=True, group="g").given["group"] == "g"


def test_mlflow_stays_in_the_run_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(loggers, "find_spec", lambda module: module)
    monkeypatch.setattr(loggers, "MLFlowLogger", Service)
    given = made(root, "mlflow", tmp_path / "run").given
    assert given["tracking_uri"] == f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}"
    assert given["artifact_location"] == (tmp_path / "run" / "mlflow").as_uri()
    assert given["run_name"] == "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert made(root, "mlflow", tmp_path / "run").given["tracking_uri"] == "http://there"


def test_pictures_go_where_they_are_taken_and_trouble_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    flow = MLFlowLogger.__new__(MLFlowLogger)
    weights = WandbLogger.__new__(WandbLogger)
    monkeypatch.setattr(MLFlowLogger, "experiment", service)
    monkeypatch.setattr(MLFlowLogger, "run_id", "r")

    def refuse(*rest: Any, **named: Any) -> None:
        raise RuntimeError("no pictures today")

    monkeypatch.setattr(WandbLogger, "log_image", refuse)
    monkeypatch.setattr(loggers._lenient, "_said", set())
    path = tmp_path / "a.png"
    for _ in range(2):
        show_picture([weights, flow, SimpleNamespace()], "val/stream", path, 3)
    assert [name for name, _, _ in service.told] == ["log_artifact"] * 2
    assert service.told[0][1] == ("r", str(path), "pictures")
    assert caplog.text.count("no pictures today") == 1
    show_text([flow], "run/command", "hello", 0)
    assert service.told[-1][1] == ("r", "hello", "texts/run_command.md")


def test_tensorboard_keeps_the_bytes_of_a_picture(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "a.png"
    Figure(figsize=(3, 2), dpi=50).savefig(path)
    board = TensorBoard(tmp_path)
    show_picture([board], "val/stream", path, 3)
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (shown,) = events.Images("val/stream")
    assert (shown.step, shown.width, shown.height) == (3, 150, 100)
    assert shown.encoded_image_string == path.read_bytes()


def test_points_are_replaced_by_later_ones(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.embedding("val_memory/rows", torch.zeros(2, 3), {"row": ["0", "1"], "read": ["a", "b"]})
    board.embedding("val_memory/rows", torch.ones(2, 3), {"row": ["0", "1"], "read": ["c", "d"]})
    board.embedding("val_memory/keys", torch.ones(2, 3), {"row": ["5", "6"]})
    assert (tmp_path / "projector/val_memory_rows_vectors.tsv").read_text() == "1\t1\t1\n1\t1\t1\n"
    assert (tmp_path / "projector/val_memory_rows_labels.tsv").read_text() == "row\tread\n0\tc\n1\td\n"
    assert (tmp_path / "projector/val_memory_keys_labels.tsv").read_text() == "5\n6\n"
    assert (tmp_path / "projector_config.pbtxt").read_text().count("tensor_name") == 2
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.filterwarnings("ignore")
def test_a_run_with_the_real_package(root: Path, tmp_path: Path, settings: Any, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the package {name} is not installed")
    nodes = yaml.safe_load((root / "conf" / "logger" / f"{name}.yaml").read_text())
    if name == "mlflow" and importlib.util.find_spec("sqlalchemy") is None:
        pytest.skip("mlflow without sqlalchemy has no local database")
    config = settings({"logger": nodes, "test": True})
    config["callbacks"]["pictures"] = {"_target_": "mannlab.training.callbacks.Pictures", "min_seconds": 0}
    summary = train(config, tmp_path / "run")
    assert summary["status"] == "completed"
    kept = {"wandb": "wandb/offline-run-*/run-*.wandb", "mlflow": "mlflow.db"}[name]
    assert list((tmp_path / "run").glob(kept))


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


def test_rows_are_on_disk_while_a_run_goes_on(tmp_path: Path) -> None:
    table = loggers.Table(tmp_path, flush_every_n_steps=100)
    for step in (51, 101, 151, 201, 251):
        table.log_metrics({"loss": 1.0}, step)
        rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:] if step > 51 else []
        assert len(rows) == {51: 0, 101: 2, 151: 2, 201: 4, 251: 4}[step]


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
