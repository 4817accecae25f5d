"""Two processes on a CPU are one process of double batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.run import train
from tests import processes

SCRIPT = """
import json, sys
from pathlib import Path
from mannlab.training.run import train
train(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
"""
PRODUCT_KEY = {"name": "product_key", "slots": 25, "width": 4, "heads": 2, "knn": 3, "key_width": 4}
DDP = {"trainer.strategy": "ddp", "trainer.devices": 2, "test": True}


def rank(config: Path, folder: Path) -> None:
    """One of two processes that were started by something else than Lightning."""
    train(json.loads(config.read_text()), folder)


def two_ranks(tmp_path: Path, config: dict[str, Any], name: str) -> str:
    """Train on two ranks; what they said."""
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        processes.start(
            rank,
            path,
            tmp_path / name,
            cwd=tmp_path,
            log=tmp_path / f"{name}_{number}.txt",
            environment={**meeting, "NODE_RANK": "0", "LOCAL_RANK": str(number)},
        )
        for number in range(2)
    ]
    ends = [one.end() for one in started]
    said = "\n".join(text for _, text in ends)
    assert [status for status, _ in ends] == [0, 0], said
    return said


def lightning_starts(tmp_path: Path, root: Path, config: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run ``train`` in a script of its own, which Lightning starts again for the second rank."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return subprocess.run(
        [sys.executable, "script.py", "config.json", str(tmp_path / "run")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    "memory",
    [
        {"name": "dense", "slots": 8, "width": 4},
        {"name": "sparse", "slots": 64, "width": 4, "heads": 1},
        PRODUCT_KEY,
        {**PRODUCT_KEY, "shard": "dim"},
        {**PRODUCT_KEY, "slots": 16, "shard": "row"},
    ],
)
def test_two_ranks_equal_one_process_of_double_batch(
    tmp_path: Path, settings: Any, memory: dict[str, Any]
) -> None:
    said = two_ranks(tmp_path, settings({**DDP, "batch_size": 2, "memory": memory}), "two")
    one = train(settings({"test": True, "batch_size": 4, "memory": memory}), tmp_path / "one")
    two = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert two["sequences"] == one["sequences"]
    expected = one["metrics"]
    if "shard" in memory:  # one rank alone cannot look at what is divided
        expected = {name: value for name, value in expected.items() if "_memory/read_" not in name}
    assert two["metrics"].keys() == expected.keys()
    for name, value in expected.items():
        assert two["metrics"][name] == pytest.approx(value, rel=1e-5), name
    ones, twos = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "two"))
    assert len(twos["random"]) == 2
    for name, weight in ones["state_dict"].items():
        torch.testing.assert_close(twos["state_dict"][name], weight, rtol=1e-5, atol=2e-6)
    assert said.count("tensorboard --logdir") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("by", ["dim", "row"])
def test_divided_values_resume_and_are_whole_in_the_checkpoint(
    tmp_path: Path, settings: Any, by: str
) -> None:
    memory = {**PRODUCT_KEY, "slots": 16, "shard": by}
    one = settings({"memory": memory, "batch_size": 4, "trainer.max_steps": 6})
    train(one, tmp_path / "one")
    for name, steps, start in (("first", 3, None), ("second", 6, str(tmp_path / "first"))):
        config = {**DDP, "test": False, "batch_size": 2, "memory": memory}
        config |= {"trainer.max_steps": steps, "ckpt_path": start}
        two_ranks(tmp_path, settings(config), name)
    whole, resumed = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "second")
    )
    for name, weight in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], weight, rtol=1e-5, atol=2e-6)
    rows = [saved["optimizer_states"][0]["rows"]["state"][0] for saved in (whole, resumed)]
    for name in ("first", "second", "last"):
        torch.testing.assert_close(rows[1][name], rows[0][name], rtol=1e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
def test_two_ranks_read_a_text_as_one_process_does(tmp_path: Path, settings: Any) -> None:
    task = {"name": "language_modelling", "source": "pydoc", "level": "byte", "length": 6, "eval_lanes": 5}
    base = {"task": task, "memory": {"name": "dense", "slots": 6, "width": 3}, "trainer.limit_val_batches": 3}
    base |= {"trainer.limit_test_batches": 4, "test": True}
    two_ranks(tmp_path, settings({**DDP, **base, "batch_size": 2}), "two")
    one = train(settings({**base, "batch_size": 4}), tmp_path / "one")
    two = json.loads((tmp_path / "two" / "summary.json").read_text())
    for name in ("val/bits_per_token", "test/perplexity_per_token"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-5), name
    saved = read_checkpoint(tmp_path / "two" / "checkpoints" / "last.ckpt")["carried"]
    assert [len(part[0]) for part in saved] == [2, 2]


@pytest.mark.slow
def test_ranks_stop_together_and_resume_exactly(tmp_path: Path, settings: Any) -> None:
    curriculum = {"threshold": 5.0, "window": 32}
    for name, changes in {
        "whole": {"trainer.max_steps": 11},
        "first": {"trainer.max_steps": 9},
        "second": {"trainer.max_steps": 11, "ckpt_path": str(tmp_path / "first")},
    }.items():
        config = settings({**DDP, "test": False, "task.curriculum": curriculum, **changes})
        two_ranks(tmp_path, config, name)
    whole, second = (read_checkpoint(tmp_path / n / "checkpoints" / "last.ckpt") for n in ("whole", "second"))
    assert whole["StreamData"] == second["StreamData"]
    saved = whole["StreamData"]["curriculum"]
    assert saved["rises"] == [[0, 3], [64, 6]]
    assert saved["seen"] == 24
    assert saved["sums"][0] != saved["sums"][1]
    for name, weight in whole["state_dict"].items():
        assert torch.equal(second["state_dict"][name], weight), name


@pytest.mark.slow
def test_lightning_starts_the_second_rank(tmp_path: Path, root: Path, settings: Any) -> None:
    done = lightning_starts(tmp_path, root, settings(DDP))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["sequences"]) == ("completed", 48)
    assert done.stdout.count("tensorboard --logdir") == 1


@pytest.mark.slow
def test_a_failure_ends_every_rank(tmp_path: Path, root: Path, settings: Any) -> None:
    done = lightning_starts(tmp_path, root, settings({**DDP, "optimizer.lr": 1e30}))
    assert done.returncode != 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "not finite" in summary["error"]
