"""Samples of tiny models that were never trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mannlab.draws import Draws
from mannlab.inspection.record import find_split, record
from mannlab.inspection.sample import Sample
from mannlab.model import assemble

COPY = {"name": "copy", "bits": 3, "max_length": 4, "bucket": 1, "lengths": [4], "test_sequences": 5}
LSTM = {"name": "lstm", "hidden": 8}
DENSE = {"name": "dense", "slots": 8, "width": 4}


@pytest.fixture
def looked() -> Callable[..., Sample]:
    """A sample of a test set through a model of these parts."""

    def make(
        memory: dict[str, Any] = DENSE,
        task: dict[str, Any] = COPY,
        controller: dict[str, Any] = LSTM,
        split: str | None = "length_4",
        index: int = 0,
        **model: Any,
    ) -> Sample:
        torch.manual_seed(0)
        parts, made = assemble({"controller": controller, "memory": memory, "task": task, "model": model})
        chosen = find_split(made, split)
        return record(
            parts.eval(), made, chosen, Draws(7, chosen.stream), index, {"task": "t", "sample": "0"}
        )

    return make
