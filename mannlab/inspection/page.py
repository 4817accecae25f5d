"""A page to step through a sample: one file that asks nobody for anything."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from mannlab.inspection.colours import Pixels, largest
from mannlab.inspection.sample import Floats, Head, Row, Sample, Slots, gaps, window

MOST_STEPS = 2000
ROOM = 1_500_000  # bytes for what slots hold, before they are written as text
MOST_GAPS = 8  # of slots left out that are marked
LEAST_COLUMNS = 4  # numbers of a slot; fewer say nothing
THUMBNAIL = 32  # pixels on a side
EMPTY = 255


def page(sample: Sample) -> str:
    """HTML in UTF-8; some megabytes at most."""
    # So that no text of a sample can end the element that it lies in.
    text = json.dumps(data(sample), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return template.replace("/*DATA*/null", text, 1)


def data(sample: Sample) -> dict[str, Any]:
    """What the page is given; numbers in 8 bits."""
    left = ""
    if sample.steps > MOST_STEPS:
        left = f"The first {MOST_STEPS:,} of {sample.steps:,} steps; others with steps=FIRST:LAST."
        sample = window(sample, 0, MOST_STEPS)
    return {
        "facts": {title: value for title, value in sample.facts.items() if title != "checkpoint"},
        "metrics": {
            name.replace("_", " "): f"{value:.4g}" for name, value in list(sample.metrics.items())[:2]
        },
        "verdict": sample.verdict,
        "steps": sample.steps,
        "first": sample.first,
        "segment": sample.segment,
        "notes": [note for note in (sample.note, left) if note],
        "inputs": [_row(row) for row in sample.inputs],
        "target": _row(sample.target),
        "output": _row(sample.output),
        "scored": sample.scored.astype(int).tolist(),
        "right": sample.right.astype(int).tolist(),
        "sure": np.round(sample.sure, 3).tolist(),
        "memories": [_memory(memory, sample.steps) for memory in sample.memories],
    }


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"title": row.title}
    if row.images is not None:
        images = row.images[
            :, :: -(-row.images.shape[1] // THUMBNAIL), :: -(-row.images.shape[2] // THUMBNAIL)
        ]
        return found | {"kind": "image", "size": list(images.shape[1:]), "data": _text(images)}
    if row.cells is not None:
        most = max(1.0, float(np.nanmax(np.abs(row.cells), initial=0)))
        return found | {"kind": "cells", "size": row.cells.shape[1], "data": _text(signed(row.cells, most))}
    return found | {"kind": "text", "texts": row.texts}


def _memory(memory: Slots, steps: int) -> dict[str, Any]:
    left = len(memory.shown) < memory.count
    notes = [memory.note] if memory.note else []
    found: dict[str, Any] = {
        "title": memory.title,
        "shown": memory.shown.tolist(),
        "names": memory.names,
        "gaps": gaps(memory.shown) if len(gaps(memory.shown)) < MOST_GAPS else [],
        "fixed": memory.fixed,
        "heads": [_head(head) for head in memory.heads],
        "rows": None,
    }
    if left:
        notes.insert(0, f"{len(memory.shown)} of {memory.count:,} slots: those that heads looked at most.")
    if memory.rows is not None:
        rows = memory.rows[:1] if memory.fixed else memory.rows
        columns = min(rows.shape[2], ROOM // (len(rows) * rows.shape[1]))
        if columns < LEAST_COLUMNS:
            notes.append(
                "What the slots hold would take too much room; choose fewer steps: steps=FIRST:LAST."
            )
        else:
            if columns < rows.shape[2]:
                notes.append(f"Of each slot the first {columns} of {rows.shape[2]} numbers.")
            rows = rows[:, :, :columns]
            most = largest(rows)
            found["rows"] = {"width": columns, "most": f"{most:.2g}", "data": _text(signed(rows, most))}
    return found | {"notes": notes}


def _head(head: Head) -> dict[str, Any]:
    scaled = np.clip(head.weights / head.scale, 0, 1)
    pairs = [
        [[int(slot), round(float(weight), 3)] for slot, weight in zip(slots, weights, strict=True)]
        for slots, weights in zip(head.top_slots[:, :2], head.top_weights[:, :2], strict=True)
    ]
    return {
        "title": head.title,
        "writes": head.writes,
        "scale": f"{head.scale:.2g}",
        "data": _text(np.rint(scaled * 255).astype(np.uint8)),
        "top": pairs,
    }


def signed(values: Floats, most: float) -> Pixels:
    """Numbers as 0 to 254: 127 is zero, the ends are ``most`` and beyond; 255 is NaN."""
    scaled = np.rint(np.clip(np.nan_to_num(values) / most, -1, 1) * 127) + 127
    return np.where(np.isnan(values), EMPTY, scaled).astype(np.uint8)


def _text(values: Pixels) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
