"""TensorBoard, as a browser would ask it, shows what a run wrote."""

from __future__ import annotations

import json
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


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
def test_it_serves_scalars_pictures_and_hyper_parameters(tmp_path: Path, settings: Any, root: Path) -> None:
    config = settings({"test": True})
    config["logger"] = yaml.safe_load((root / "conf/logger/tensorboard.yaml").read_text())
    config["callbacks"]["pictures"] = {"_target_": "mannlab.training.callbacks.Pictures", "min_seconds": 0}
    train(config, tmp_path / "run")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    with subprocess.Popen([*command, "--load_fast=false"], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = next(line for line in server.stderr if "http://" in line)
            base = "http://" + line.split("http://")[1].split()[0].rstrip("/")
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
            server.terminate()
