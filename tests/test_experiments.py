"""Every shipped experiment trains."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mannlab.__main__ import main
from mannlab.datasets import babi, multi30k

ROOT = Path(__file__).parent.parent
# What cannot be had from what is generated.
NEEDED = {"dnc_babi": babi.find, "multi30k": multi30k.find, "multi30k_memory": multi30k.find}
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = NEEDED.get(name)
    if find and find(Path(os.environ.get("MANNLAB_DATA", "nowhere"))) is None:
        pytest.skip(f"MANNLAB_DATA names no folder with what experiment={name} learns")
    monkeypatch.chdir(tmp_path)
    short = [
        "trainer.max_steps=2",
        "batch_size=4",
        "eval_batch_size=1",
        "trainer.val_check_interval=2",
        "test=false",
        "threads=1",
        *(["task.val_translations=2"] if "multi30k" in name else []),
    ]
    assert main([f"experiment={name}", *short, "trainer.limit_val_batches=1", "callbacks.pictures=null"]) == 0
    (summary,) = tmp_path.glob("outputs/*/*/*/summary.json")
    assert json.loads(summary.read_text())["status"] == "completed"
