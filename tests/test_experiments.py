"""Every shipped experiment trains."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mannlab.__main__ import main
from mannlab.datasets import multi30k

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translates = name.startswith("multi30k")
    if translates and multi30k.find(Path(os.environ.get("MANNLAB_DATA", "nowhere"))) is None:
        pytest.skip("MANNLAB_DATA names no folder with Multi30k")
    monkeypatch.chdir(tmp_path)
    short = [
        "trainer.max_steps=2",
        "batch_size=4",
        "eval_batch_size=1",
        "trainer.val_check_interval=2",
        "test=false",
        "threads=1",
        *(["task.val_translations=2"] if translates else []),
    ]
    assert main([f"experiment={name}", *short, "trainer.limit_val_batches=1", "callbacks.pictures=null"]) == 0
    (summary,) = tmp_path.glob("outputs/*/*/*/summary.json")
    assert json.loads(summary.read_text())["status"] == "completed"
