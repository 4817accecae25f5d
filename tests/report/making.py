"""Folders as runs leave them, made without training."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mannlab.report import groups, runs
from mannlab.report.page import Page

BATCH = 4
SIZES = (10, 20, 50)
EVIL = "<img src=https://example.org/x onerror=alert(1)>\"'</script><script>alert(2)</script>"


def config(seed: int = 1, **changed: Any) -> dict[str, Any]:
    """A configuration; ``changed`` has dotted keys with ``__`` for the dots."""
    found: dict[str, Any] = {
        "seed": seed,
        "batch_size": BATCH,
        "threads": 1,
        "outputs": "outputs",
        "controller": {"name": "lstm", "hidden": 100},
        "memory": {"name": "dense", "slots": 128},
        "task": {"name": "copy", "bits": 8},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.003},
        "trainer": {"max_steps": 300},
    }
    for key, value in changed.items():
        *parents, last = key.split("__")
        node = found
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return found


def summary(value: float, made: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """A summary of a run with test sets of several sizes."""
    metrics = {f"{split}/bit_errors": value for split in ("val", "test")}
    metrics |= {f"{split}/cost_bits": 2 * value for split in ("val", "test")}
    metrics |= {f"test_length_{size}/bit_errors": value * size for size in SIZES}
    return {
        "status": "completed",
        "task": made["task"]["name"],
        "task_label": made["task"]["name"],
        "seed": made["seed"],
        "steps": 300,
        "sequences": 300 * BATCH,
        "wall_seconds": 12.5,
        "parameters": 1000,
        "metrics": metrics,
        "objective": {"metric": "cost_bits", "mode": "min", "value": 2 * value, "shown": "bit_errors"},
        "sequences_until_solved": None,
        "generalisation": {
            "levels": {f"test_length_{size}": size for size in SIZES},
            "trained": 20,
        },
        "overrides": [f"seed={made['seed']}"],
        "error": None,
        **changed,
    }


def run(
    folder: Path,
    value: float | None = 1.0,
    seed: int = 1,
    changed: Mapping[str, Any] | None = None,
    curve: Sequence[float] | None = (4.0, 2.0, 1.0),
    pictures: Sequence[str] = (),
    **said: Any,
) -> Path:
    """A run's folder; no summary where ``value`` is None, no log where ``curve`` is."""
    folder.mkdir(parents=True)
    made = config(seed, **(changed or {}))
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    if value is not None:
        (folder / "summary.json").write_text(json.dumps(summary(value, made, **said)))
    if curve is not None:
        log(folder, curve)
    for name in pictures:
        (folder / "pictures").mkdir(exist_ok=True)
        image = Image.new("RGB", (1200, 300), "white")
        ImageDraw.Draw(image).line((0, 0, 1200, 300), fill=(10, 40 + seed, 200), width=9)
        image.save(folder / "pictures" / f"{name}.png")
    return folder


def log(folder: Path, curve: Sequence[float], every: int = 100) -> None:
    """An event file: a validation at each ``every`` steps, a second each."""
    writer = EventFileWriter(str(folder))
    write(writer, "hparams/val/bit_errors", float("nan"), 0, 0.0)
    write(writer, "hparams/val/cost_bits", float("nan"), 0, 0.0)
    for index, value in enumerate(curve, 1):
        step, seconds = every * index, float(index)
        write(writer, "train/sequences", BATCH * step, step, seconds)
        write(writer, "train/loss_nats", 3 * value, step, seconds)
        write(writer, "val/bit_errors", value, step, seconds)
        write(writer, "val/cost_bits", 2 * value, step, seconds)
    writer.close()


def write(writer: EventFileWriter, tag: str, value: float, step: int, seconds: float) -> None:
    """One number, in the way of ``torch.utils.tensorboard``, written so many seconds from now."""
    number = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    writer.add_event(Event(wall_time=time.time() + seconds, step=step, summary=number))


def page_of(folder: Path, *by: str) -> str:
    """The page of the runs in a folder."""
    return Page(groups.sections(runs.collect([folder]), by), ["outputs"]).html()
