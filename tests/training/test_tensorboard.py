"""TensorBoard, as a browser asks it and as a browser shows it, has what a run wrote."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mannlab.training.run import train

pytestmark = [pytest.mark.slow]

PATIENCE = 120  # seconds: the machine may be busy
COMMAND = ["task=copy", "trainer.max_steps=6"]


def ask(url: str, patience: float = PATIENCE, data: Any = None) -> Any:
    """The JSON at an address, as soon as it holds something."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, None if data is None else json.dumps(data).encode(), headers)
    until = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
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


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, settings: Any, root: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows one small, finished run called ``run``."""
    folder = tmp_path_factory.mktemp("board")
    config = settings({"test": True})
    config["logger"] = yaml.safe_load((root / "conf/logger/tensorboard.yaml").read_text())
    config["callbacks"]["pictures"] = {"_target_": "mannlab.training.callbacks.Pictures", "min_seconds": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mannlab.training.run.print_results", lambda *rest: None)
        train({**config, "overrides": COMMAND}, folder / "run")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0"]
    said = folder.parent / "said.txt"
    # Into a file: a pipe that nobody reads would stop the server once it is full.
    with (
        said.open("w") as log,
        subprocess.Popen([*command, "--load_fast=false"], stdout=log, stderr=log) as server,
    ):
        try:
            base = address(said, server)
            ask(f"{base}/data/plugin/scalars/tags")
            yield base
        finally:
            server.kill()


# ---------------------------------------------------------------------- what is served


def test_curves(board: str) -> None:
    scalars = ask(f"{board}/data/plugin/scalars/tags")["run"]
    parts = ("global", "encoder", "controller", "memory", "interface", "head")
    wanted = {"train/loss_nats", "val/bit_errors_per_sequence", "test/bit_errors_per_sequence"}
    wanted |= {"train_speed/sequences_per_second", "train_speed/steps_per_second"}
    wanted |= {f"train_gradients/{part}_norm" for part in parts if part != "encoder"}
    wanted |= {f"val_memory/{kind}_sharpness_percent" for kind in ("read", "write")}
    wanted |= {"val_memory/read_entropy_percent", "test_memory/write_slots_used_percent"}
    wanted |= {"val_memory/read_content_gate_percent"}
    assert wanted <= set(scalars), wanted - set(scalars)
    points = ask(f"{board}/data/plugin/scalars/scalars?run=run&tag=val%2Fbit_errors_per_sequence")
    assert [point[1] for point in points] == [3, 6]


def test_the_layout_of_charts_finds_its_curves(board: str) -> None:
    layout = ask(f"{board}/data/plugin/custom_scalars/layout")
    titles = [section["title"] for section in layout["category"]]
    assert titles == ["Learning", "Memory", "Gradients before clipping", "Speed", "Schedule"]
    charts = [chart for section in layout["category"] for chart in section["chart"]]
    lines = {}
    for chart in charts:
        asked = [urllib.parse.quote(tag) for tag in chart["multiline"]["tag"]]
        answers = [ask(f"{board}/data/plugin/custom_scalars/scalars?run=run&tag={tag}") for tag in asked]
        lines[chart["title"]] = sorted(tag for answer in answers for tag in answer["tag_to_events"])
    assert all(lines.values()), lines
    assert lines["loss nats"] == ["train/loss_nats", "val/loss_nats"]
    assert "val_memory/erase_percent" in lines["gates and modes, %"]
    assert "train_gradients/global_norm" not in lines["by part"]


def test_pictures_go_through_time(board: str) -> None:
    pictures = ask(f"{board}/data/plugin/images/tags")["run"]
    assert {"val/stream", "val/memory content", "val_length_5/stream", "test/stream"} <= set(pictures)
    shots = ask(f"{board}/data/plugin/images/images?run=run&tag=val%2Fstream&sample=0")
    assert [shot["step"] for shot in shots][-1] == 6
    assert len(shots) >= 2


def test_options_with_final_metrics(board: str) -> None:
    asked = {"experimentName": "", "hparamsLimit": 1000}
    shown = ask(f"{board}/data/plugin/hparams/experiment", data=asked)
    assert {"memory.slots", "seed"} <= {info["name"] for info in shown["hparamInfos"]}
    names = [info["name"] for info in shown["metricInfos"]]
    final = next(name for name in names if name["tag"] == "test/bit_errors_per_sequence")
    groups = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"metric": final, "includeInResult": True}, {"hparam": "memory.slots"}],
        "startIndex": 0,
        "sliceSize": 5,
    }
    rows = ask(f"{board}/data/plugin/hparams/session_groups", data=groups)["sessionGroups"]
    assert len(rows) == 1
    assert rows[0]["hparams"]["memory.slots"] == 8
    assert any(value["name"]["tag"] == "test/bit_errors_per_sequence" for value in rows[0]["metricValues"])


def test_texts(board: str) -> None:
    texts = ask(f"{board}/data/plugin/text/tags")["run"]
    told = {
        tag: ask(f"{board}/data/plugin/text/text?run=run&tag={urllib.parse.quote(tag)}")[-1]["text"]
        for tag in texts
    }
    command = next(text for tag, text in told.items() if tag.startswith("run/command"))
    assert "python -m mannlab task=copy trainer.max_steps=6 seed=3" in command
    configuration = next(text for tag, text in told.items() if tag.startswith("run/configuration"))
    assert "slots: 8" in configuration


def test_points(board: str) -> None:
    assert ask(f"{board}/data/plugin/projector/runs") == ["run"]
    info = ask(f"{board}/data/plugin/projector/info?run=run")
    sets = {entry["tensorName"]: entry for entry in info["embeddings"]}
    assert set(sets) == {"val_memory/rows", "test_memory/rows"}
    assert sets["val_memory/rows"]["tensorShape"] == [8, 4]
    name = urllib.parse.quote("val_memory/rows")
    labels = f"{board}/data/plugin/projector/metadata?run=run&name={name}"
    with urllib.request.urlopen(labels, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    assert lines[0].split("\t") == ["when this came in", "written at step", "read at step", "row"]
    assert len([line for line in lines if line]) == 9


# ---------------------------------------------------------------------- what is seen


@pytest.fixture(scope="module")
def page(board: str) -> Iterator[Any]:
    """A page of a browser without a window, wide enough for all tabs."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium to look at TensorBoard with")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        yield page
        browser.close()


@pytest.mark.parametrize(
    ("tab", "texts"),
    [
        ("custom_scalars", ["Learning", "Memory", "loss nats", "slots used, %"]),
        ("images", ["test/memory content", "test/stream"]),
        ("hparams", ["memory.slots", "test/bit_errors_per_sequence"]),
        ("text", ["run/command", "python -m mannlab task=copy"]),
        ("projector", ["2 tensors found", "Points: 8"]),
    ],
)
def test_a_browser_shows(board: str, page: Any, tab: str, texts: list[str]) -> None:
    page.goto("about:blank")
    page.goto(f"{board}/#{tab}", wait_until="domcontentloaded")
    until = time.monotonic() + PATIENCE
    # The projector lives in a frame of its own.
    while missing := [text for text in texts if not any(f.get_by_text(text).count() for f in page.frames)]:
        assert time.monotonic() < until, f"not shown: {missing}"
        page.wait_for_timeout(500)
