"""Learning curves as loggers wrote them: TensorBoard's event files, or ``metrics.csv``.

TensorBoard's own reader checks every byte in Python, those of pictures too, and most bytes of a file are
pictures. Here records are framed by hand, and large ones are skipped unread.
"""

from __future__ import annotations

import csv
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EVENTS, TABLE = "events.out.tfevents.*", "metrics.csv"
LARGEST = 65_536  # bytes of a record that may hold a number
STAGES = ("train/", "val")
SEQUENCES = "train/sequences"
WATCHED = "hparams/val/"


@dataclass
class Scalars:
    """What a run logged.

    Attributes:
        curves: tag to step to (value, seconds since the run began, or NaN if nobody wrote it down).
        watched: the main metrics of validation, if the log names them.
        problem: why something could not be read.
        began: when the first file was begun, seconds since the epoch.
    """

    curves: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    watched: list[str] = field(default_factory=list)
    problem: str | None = None
    began: float | None = None

    def curve(self, tag: str, axis: str, sequences: float | None = None) -> tuple[list[float], list[float]]:
        """The points of a tag, by rising x.

        Args:
            tag: such as ``val/loss_nats``.
            axis: ``"sequences"`` or ``"seconds"``.
            sequences: how many make a step, for where the log does not say.
        """
        points = sorted(self.curves.get(tag, {}).items())
        if axis == "seconds":
            timed = sorted((seconds, value) for _, (value, seconds) in points if math.isfinite(seconds))
            return [seconds for seconds, _ in timed], [value for _, value in timed]
        steps = [step for step, _ in points]
        return self._seen(steps, sequences), [value for _, (value, _) in points]

    def _seen(self, steps: list[int], rate: float | None) -> list[float]:
        known = sorted((step, value) for step, (value, _) in self.curves.get(SEQUENCES, {}).items())
        if known:
            rate = known[-1][1] / known[-1][0] if known[-1][0] else rate
        marks = [(0, 0.0), *known]
        found, index = [], 0
        for step in steps:
            while index + 1 < len(marks) and marks[index + 1][0] < step:
                index += 1
            (left, low), right = marks[index], index + 1
            if right < len(marks):
                part = (step - left) / max(1, marks[right][0] - left)
                found.append(low + part * (marks[right][1] - low))
            else:
                found.append(low + (step - left) * (rate or 1.0))
        return found


def read(folder: Path) -> Scalars:
    """Everything that was logged in a run folder so far; nothing is an error."""
    found = Scalars()
    files = sorted(folder.glob(EVENTS))
    try:
        for path in files:
            _read_events(path, found)
        if not files and (folder / TABLE).is_file():
            _read_table(folder / TABLE, found)
    except OSError as error:
        found.problem = f"{error.filename}: {error.strerror}"
    return found


def _read_events(path: Path, found: Scalars) -> None:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto import event_pb2

    try:
        for record in records(path):
            event = event_pb2.Event.FromString(record)
            found.began = event.wall_time if found.began is None else found.began
            if event.session_log.status == event_pb2.SessionLog.START:
                _forget(found, event.step)
            for value in event.summary.value:
                number = _number(value)
                if number is not None:
                    _keep(found, value.tag, event.step, number, event.wall_time - found.began)
    except DecodeError:
        found.problem = f"{path.name} is damaged; what stands before the damage was read"


def _forget(found: Scalars, step: int) -> None:
    """A run that goes on writes again what was written from this step on; at 0 it only begins."""
    if step > 0:
        for tag, curve in found.curves.items():
            found.curves[tag] = {at: point for at, point in curve.items() if at < step}


def _number(value: object) -> float | None:
    """The number in a summary, in the older and the newer way of writing it."""
    kind = value.WhichOneof("value")  # type: ignore[attr-defined]
    if kind == "simple_value":
        return float(value.simple_value)  # type: ignore[attr-defined]
    if kind == "tensor" and len(value.tensor.float_val) == 1:  # type: ignore[attr-defined]
        return float(value.tensor.float_val[0])  # type: ignore[attr-defined]
    return None


def records(path: Path, largest: int = LARGEST) -> Iterator[bytes]:
    """The records of an event file up to its end, or up to one that is still being written.

    Args:
        path: the file.
        largest: longer records are skipped.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        # A record is its length, that length's checksum, itself, and its checksum.
        while len(head := file.read(12)) == 12:
            length = struct.unpack("<Q", head[:8])[0]
            end = file.tell() + length + 4
            if end > size:
                return
            if length <= largest:
                yield file.read(length)
            file.seek(end)


def _read_table(path: Path, found: Scalars) -> None:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(line.replace("\0", "") for line in file):
            try:
                step = int(float(row.pop("step", None) or "nan"))
            except (ValueError, OverflowError):
                continue
            for tag, text in row.items():
                try:
                    _keep(found, str(tag), step, float(text), math.nan)
                except (TypeError, ValueError):
                    continue


def _keep(found: Scalars, tag: str, step: int, value: float, seconds: float) -> None:
    if tag.startswith(WATCHED):
        name = tag.removeprefix(WATCHED)
        if name not in found.watched:
            found.watched.append(name)
    elif tag.startswith(STAGES):
        found.curves.setdefault(tag, {})[step] = (value, seconds)
