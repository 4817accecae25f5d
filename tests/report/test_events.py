"""Logs, held to TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mannlab.report import events
from mannlab.training.loggers import TensorBoard
from tests.report import making


def file(folder: Path) -> Path:
    return next(folder.glob(events.EVENTS))


def test_records_are_those_that_tensorboard_reads(tmp_path: Path) -> None:
    making.log(tmp_path, [3.0, 2.0, 1.0])
    plain = list(RawEventFileLoader(str(file(tmp_path))).Load())
    assert len(plain) > 12
    assert list(events.records(file(tmp_path))) == plain


def test_large_records_are_skipped(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    picture = Summary(value=[Summary.Value(tag="val/stream", image=Summary.Image(width=1))])
    picture.value[0].image.encoded_image_string = b"x" * (events.LARGEST + 1)
    making.write(writer, "val/a", 1.0, 1, 0.0)
    writer.add_event(Event(wall_time=2e9, step=1, summary=picture))
    making.write(writer, "val/a", 2.0, 2, 0.0)
    writer.close()
    assert max(map(len, events.records(file(tmp_path)))) < 1000
    assert events.read(tmp_path).curve("val/a", "sequences", 1.0) == ([1, 2], [1.0, 2.0])


def test_curves_by_sequences_and_by_time(tmp_path: Path) -> None:
    making.log(tmp_path, [3.0, 2.0])
    found = events.read(tmp_path)
    assert found.curve("val/bit_errors", "sequences") == ([400, 800], [3.0, 2.0])
    seconds, values = found.curve("val/bit_errors", "seconds")
    assert seconds == pytest.approx([1.0, 2.0], abs=0.5)
    assert values == [3.0, 2.0]
    assert found.watched == ["bit_errors", "cost_bits"]
    assert found.problem is None


def test_sequences_between_and_after_what_was_logged(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    making.write(writer, "train/sequences", 1000, 100, 0.0)
    making.write(writer, "train/sequences", 4000, 200, 0.0)
    for step in (50, 100, 150, 300):
        making.write(writer, "val/a", step, step, 0.0)
    writer.close()
    assert events.read(tmp_path).curve("val/a", "sequences")[0] == [500, 1000, 2500, 6000]


def test_without_a_count_of_sequences_the_rate_is_used(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    making.write(writer, "val/a", 1.0, 10, 0.0)
    writer.close()
    assert events.read(tmp_path).curve("val/a", "sequences", 16.0) == ([160.0], [1.0])


@pytest.mark.parametrize("cut", [1, 5, 13, 40])
def test_a_file_that_is_still_being_written(tmp_path: Path, cut: int) -> None:
    making.log(tmp_path, [3.0, 2.0])
    path = file(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    found = events.read(tmp_path)
    assert found.curve("val/bit_errors", "sequences")[1] == [3.0, 2.0]
    assert len(found.curves["val/cost_bits"]) == 1


def test_a_damaged_file_gives_what_stands_before_the_damage(tmp_path: Path) -> None:
    making.log(tmp_path, [3.0, 2.0])
    path = file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + (4).to_bytes(8, "little") + b"crc!" + b"\xff\xff\xff\xff" + b"crc!")
    found = events.read(tmp_path)
    assert found.problem is not None
    assert "damaged" in found.problem
    assert found.curve("val/bit_errors", "sequences")[1] == [3.0, 2.0]
    path.write_bytes(whole[:100] + b"\xff" * 300)
    events.read(tmp_path)


def test_several_files_of_a_run_are_one_curve(tmp_path: Path) -> None:
    making.log(tmp_path, [3.0])
    file(tmp_path).rename(tmp_path / "events.out.tfevents.1.old")
    making.log(tmp_path, [5.0, 2.0])
    assert events.read(tmp_path).curve("val/bit_errors", "sequences")[1] == [5.0, 2.0]


def test_what_a_run_that_goes_on_takes_back_is_forgotten(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    for step in (10, 20, 30):
        logger.log_metrics({"val/a": step}, step)
    logger.close()
    file(tmp_path).rename(tmp_path / "events.out.tfevents.1.old")
    logger = TensorBoard(tmp_path)
    logger.go_on(20)
    logger.log_metrics({"val/a": 1.0}, 25)
    logger.close()
    assert events.read(tmp_path).curve("val/a", "sequences", 1.0) == ([10, 20, 25], [10.0, 20.0, 1.0])


def test_numbers_in_the_newer_way_of_writing_them(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    number = Summary(value=[Summary.Value(tag="val/a", tensor=TensorProto(float_val=[7.0]))])
    writer.add_event(Event(wall_time=2e9, step=1, summary=number))
    writer.close()
    assert events.read(tmp_path).curve("val/a", "sequences", 1.0)[1] == [7.0]


def test_a_table_of_the_csv_logger(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,train/sequences,val/a\n10,40,\n10,,1.5\nnonsense,,3\n20,80,2.5\n25,,nan\n30,100,x\n\0,"
    )
    found = events.read(tmp_path)
    x, y = found.curve("val/a", "sequences")
    assert x[:2] == [40, 80]
    assert y[:2] == [1.5, 2.5]
    assert math.isnan(y[2])
    assert found.curve("val/a", "seconds") == ([], [])


def test_no_log_is_no_error(tmp_path: Path) -> None:
    assert events.read(tmp_path).curves == {}
    assert events.read(tmp_path / "missing").curve("val/a", "sequences") == ([], [])
