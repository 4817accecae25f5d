"""What jobs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mannlab.errors import ConfigError
from mannlab.sweep import devices, engines
from mannlab.sweep.options import Options
from mannlab.sweep.record import Job


def test_gpus_are_those_that_are_visible(tmp_path: Path) -> None:
    (tmp_path / "0000:01").mkdir()
    (tmp_path / "0000:02").mkdir()
    assert devices.gpus({}, tmp_path) == ["0", "1"]
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-ab"}, tmp_path) == ["3", "GPU-ab"]
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == []


@pytest.mark.parametrize(
    ("trainer", "found", "expected"),
    [
        ({"devices": 1}, ["0", "1"], (1, 1)),
        ({"devices": 2, "accelerator": "gpu"}, ["0", "1"], (2, 2)),
        ({"devices": 2, "accelerator": "cpu"}, ["0", "1"], (2, 0)),
        ({"devices": 2}, [], (2, 0)),
        ({"devices": "auto"}, ["0", "1", "2"], (3, 3)),
        ({"devices": -1}, ["0", "0", "1"], (2, 2)),
        ({"devices": "auto"}, [], (1, 0)),
        ({}, [], (1, 0)),
    ],
)
def test_what_a_job_needs(trainer: dict[str, Any], found: list[str], expected: tuple[int, int]) -> None:
    assert devices.needs({"trainer": trainer}, found) == expected


def test_gpus_by_number_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep.devices=\[1\]"):
        devices.needs({"trainer": {"devices": [1]}}, ["0", "1"])


def test_cores_and_memory_limit_how_many() -> None:
    assert devices.several(1, 8, None) == 8
    assert devices.several(4, 8, None) == 2
    assert devices.several(1, 8, 5 * 2**30) == 2
    assert devices.several(16, 8, 0) == 1


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 12)
    assert set(devices.share("auto", 3, 2).values()) == {"2"}
    assert set(devices.share("auto", 40, 1).values()) == {"1"}
    assert devices.share(5, 40, 1)["OMP_NUM_THREADS"] == "5"
    assert devices.share(5, 40, 1)["MANNLAB_CORES"] == "5"


class Done(engines.Handle):
    """A job that ends when it is told."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def ask(self) -> None:
        self.code = 130

    kill = ask


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Done, dict[str, str]]]:
    """What would have been started."""
    found: list[tuple[Done, dict[str, str]]] = []

    def launch(self: engines.Local, job: Job, environment: dict[str, str]) -> Done:
        found.append((Done(), environment))
        return found[-1][0]

    monkeypatch.setattr(engines.Local, "launch", launch)
    return found


def jobs(many: int, gpus: int, folder: Path = Path("x")) -> list[Job]:
    return [Job(number, folder, [], gpus=gpus, processes=max(1, gpus)) for number in range(many)]


def test_each_job_has_a_gpu_of_its_own(seen: list[tuple[Done, dict[str, str]]]) -> None:
    engine = engines.Local(Options(devices=[0, 1, 3]))
    waiting = jobs(4, 1)
    engine.plan(waiting)
    assert engine.room == 3
    for job in waiting[:3]:
        assert engine.fits(job)
        engine.start(job)
    assert [one["CUDA_VISIBLE_DEVICES"] for _, one in seen] == ["0", "1", "3"]
    assert not engine.fits(waiting[3])
    seen[1][0].code = 0
    assert engine.fits(waiting[3])
    assert engine.start(waiting[3]).where == "GPU 1"


def test_a_job_may_have_several_gpus_and_a_gpu_several_jobs(seen: list[tuple[Done, dict[str, str]]]) -> None:
    engine = engines.Local(Options(devices=[0, 0, 1, 1]))
    pair = jobs(3, 2)
    engine.plan(pair)
    assert engine.room == 2
    engine.start(pair[0])
    engine.start(pair[1])
    assert [one["CUDA_VISIBLE_DEVICES"] for _, one in seen] == ["0,1", "0,1"]
    assert not engine.fits(pair[2])
    with pytest.raises(ConfigError, match="needs 3 GPUs"):
        engine.plan(jobs(1, 3))


def test_without_gpus_the_cores_count(
    seen: list[tuple[Done, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setattr(devices, "free_bytes", lambda: None)
    engine = engines.Local(Options(devices="none"))
    waiting = jobs(5, 0)
    engine.plan(waiting)
    assert engine.room == 5
    engine.start(waiting[0])
    assert "CUDA_VISIBLE_DEVICES" not in seen[0][1]
    assert seen[0][1]["OMP_NUM_THREADS"] == "1"
    fixed = engines.Local(Options(devices="none", jobs=2))
    fixed.plan(waiting)
    fixed.start(Job(9, Path("x"), [], threads=3))
    assert fixed.room == 2
    assert seen[-1][1]["OMP_NUM_THREADS"] == "3"
