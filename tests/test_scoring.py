"""Scores that do not depend on the precision of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab.contracts import Bits
from mannlab.draws import Draws
from mannlab.registry import build
from mannlab.training.data import place

SEQUENCES = 257  # the first number that there is not in bfloat16
SMALL: dict[str, dict[str, Any]] = {
    "addition": {"max_digits": 3},
    "associative_recall": {},
    "babi": {"source": "generated", "size": "1k", "families": ["counting"]},
    "copy": {"max_length": 5},
    "dynamic_ngrams": {"order": 3, "min_length": 9, "max_length": 9},
    "language_modelling": {
        "source": "files",
        "level": "bpe",
        "vocabulary": 260,
        "length": 7,
        "eval_lanes": 2,
    },
    "omniglot": {"source": "glyphs", "classes": 2, "episode_length": 7},
    "priority_sort": {"min_items": 3, "max_items": 5, "answers": 3},
    "repeat_copy": {"max_length": 3, "max_repeats": 3},
    "translation": {"source": "numbers", "pairs": 300, "largest": 9999, "vocabulary": 300},
}


@pytest.mark.parametrize("name", SMALL)
def test_metrics_are_counted_exactly_in_bfloat16(name: str, tmp_path: Path) -> None:
    options = SMALL[name]
    if name in ("translation", "language_modelling"):
        pytest.importorskip("tokenizers")
    if name == "language_modelling":
        (tmp_path / "text.txt").write_text("one two three, four " * 300)
        options = {**options, "files": [str(tmp_path / "text.txt")]}
    task = build("task", name, **options)
    task.prepare()
    batch = task.batch(task.splits("train")[0], Draws(0, "train"), 0, SEQUENCES)
    target = task.spec.target
    shape = (target.size,) if isinstance(target, Bits) else (target.groups, target.count)
    logits = torch.randn(*batch.scored.shape, *shape, generator=torch.Generator().manual_seed(0))
    logits = logits.to(torch.bfloat16)
    low = task.score(logits, place(batch, torch.device("cpu"), torch.bfloat16))
    exact = task.score(logits.float(), batch)
    assert float(low.loss) == pytest.approx(float(exact.loss), rel=1e-5)
    for metric, (total, count) in exact.metrics.items():
        found = tuple(float(part) for part in low.metrics[metric])
        assert found == pytest.approx((float(total), float(count)), rel=1e-5), metric
