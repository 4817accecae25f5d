"""``mannlab bench``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mannlab.cli import bench
from mannlab.errors import ConfigError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch):
    """Commands instead of processes; each ends with the code given for it."""
    seen, codes = [], {}

    def run(command, check):
        seen.append([Path(command[1]).stem, *command[2:]])
        return subprocess.CompletedProcess(command, codes.get(seen[-1][0], 0))

    monkeypatch.setattr(bench.subprocess, "run", run)
    return seen, codes


def test_all_by_default(calls):
    assert bench.main([]) == 0
    assert [name for (name,) in calls[0]] == list(bench.names())
    assert {"dense", "sparse", "product_key"} <= set(bench.names())


def test_by_name_with_options(calls):
    bench.main(["sparse", "time", "--largest", "1024"])
    assert calls[0] == [["sparse", "time", "--largest", "1024"]]


def test_several(calls):
    bench.main(["dense", "sparse"])
    assert calls[0] == [["dense"], ["sparse"]]


def test_a_failure_ends_it_and_is_told(calls):
    calls[1]["dense"] = 3
    assert bench.main(["dense", "sparse"]) == 3
    assert calls[0] == [["dense"]]


def test_an_unknown_name_is_refused(calls):
    with pytest.raises(ConfigError, match="There is no benchmark 'dens'"):
        bench.main(["dens"])


def test_options_for_several_are_refused(calls):
    with pytest.raises(ConfigError, match="several benchmarks"):
        bench.main(["dense", "sparse", "--threads", "1"])


def test_help_says_what_each_is(calls, capsys):
    assert bench.main(["--help"]) == 0
    assert "product_key" in capsys.readouterr().out
    assert calls[0] == []


@pytest.mark.slow
def test_the_dense_benchmark_runs(tmp_path: Path):
    script = bench.folder() / "dense.py"
    command = [sys.executable, str(script), "data", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert json.loads((tmp_path / "dense.json").read_text())["data"]["16"] > 0
