"""TensorBoard, as a browser would ask it, shows what a run wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from mannlab.training.run import train


def ask(url: str, patience: float = 60) -> Any:
    """The JSON at an address, as soon as it holds something."""
    until = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.loads(answer.read())
            if found or time.monotonic() > until:
                return found
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


def address(said: Path, server: subprocess.Popen[bytes], patience: float = 120) -> str:
    """Where the server says that it listens."""
    until = time.monotonic() + patience
    while time.monotonic() < until and server.poll() is None:
        if found := re.search(r"http://[^\s/]+", said.read_text()):
            return found[0]
        time.sleep(0.2)
    pytest.fail(f"TensorBoard did not start:\n{said.read_text()}")


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
def test_it_serves_scalars_pictures_and_hyper_parameters(tmp_path: Path, settings: Any, root: Path) -> None:
    config = settings({"test": True})
    config["logger"] = yaml.safe_load((root / "conf/logger/tensorboard.yaml").read_text())
    config["callbacks"]["pictures"] = {"_target_": "mannlab.training.callbacks.Pictures", "min_seconds": 0}
    train(config, tmp_path / "run")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    said = tmp_path / "said.txt"
    # Into a file: a pipe that nobody reads would stop the server once it is full.
    with (
        said.open("w") as log,
        subprocess.Popen([*command, "--load_fast=false"], stdout=log, stderr=log) as server,
    ):
        try:
            base = address(said, server)
            scalars = ask(f"{base}/data/plugin/scalars/tags")["run"]
            assert {"train/loss_nats", "val/bit_errors_per_sequence"} <= set(scalars)
            points = ask(f"{base}/data/plugin/scalars/scalars?run=run&tag=val%2Fbit_errors_per_sequence")
            assert [point[1] for point in points] == [3, 6]
            pictures = ask(f"{base}/data/plugin/images/tags")["run"]
            assert any("stream" in tag for tag in pictures)
            experiment = urllib.request.Request(
                f"{base}/data/plugin/hparams/experiment",
                data=json.dumps({"experimentName": "", "hparamsLimit": 1000}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(experiment, timeout=30) as answer:
                shown = json.loads(answer.read())
            assert any("bit_errors" in info["name"]["tag"] for info in shown["metricInfos"])
        finally:
            server.kill()
