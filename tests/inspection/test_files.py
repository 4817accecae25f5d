"""The picture, the animation and the page."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mannlab.inspection import animation, colours, files, page, picture
from mannlab.inspection.sample import Row, Sample
from tests.inspection.conftest import COPY


def given(text: str) -> Any:
    """What a page was given."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_all_three_are_written(looked: Callable[..., Sample], tmp_path: Path) -> None:
    found = looked()
    paths = files.write(found, tmp_path / "there")
    assert {path.name for path in paths.values()} == {"inspect.png", "inspect.gif", "inspect.html"}
    with Image.open(paths["picture"]) as image, Image.open(paths["animation"]) as moving:
        assert image.size[0] > 500
        assert getattr(moving, "n_frames", 1) == found.steps
    assert {path.name for path in (tmp_path / "there").iterdir()} == {path.name for path in paths.values()}


def test_frames_of_the_animation_are_as_drawn(looked: Callable[..., Sample], tmp_path: Path) -> None:
    found = looked()
    animation.save(found, tmp_path / "a.gif")
    table = animation.palette()
    with Image.open(tmp_path / "a.gif") as read:
        for step, drawn in enumerate(animation.frames(found)):
            read.seek(step)
            flat = drawn.quantize(palette=table, dither=Image.Dither.NONE).convert("RGB")
            assert np.array_equal(np.asarray(read.convert("RGB")), np.asarray(flat)), step


def test_long_samples_skip_frames(looked: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "MOST_FRAMES", 4)
    assert len(animation.frames(looked())) == 3


def test_a_page_asks_nobody_and_holds_what_was_seen(looked: Callable[..., Sample]) -> None:
    found = looked()
    text = page.page(found)
    assert not re.search(r"https?://|src=|<link|@import|url\(", text)
    assert "default-src 'none'" in text
    data = given(text)
    (memory,), (seen,) = data["memories"], found.memories
    for head, kept in zip(memory["heads"], seen.heads, strict=True):
        weights = np.frombuffer(base64.b64decode(head["data"]), np.uint8).reshape(kept.weights.shape)
        np.testing.assert_allclose(weights / 255 * kept.scale, kept.weights, atol=0.003)
        assert float(head["scale"]) == pytest.approx(kept.scale, rel=0.05)
    assert seen.rows is not None
    raw = np.frombuffer(base64.b64decode(memory["rows"]["data"]), np.uint8).reshape(seen.rows.shape)
    most = colours.largest(seen.rows)
    np.testing.assert_allclose(
        (raw.astype(float) - 127) / 127 * most, np.clip(seen.rows, -most, most), atol=most / 200
    )


def test_a_text_cannot_leave_its_place(looked: Callable[..., Sample]) -> None:
    evil = "</script><script>alert(1)</script>"
    found = looked()
    found = replace(found, inputs=[Row("input", [evil] * found.steps)])
    text = page.page(found)
    assert evil not in text
    assert given(text)["inputs"][0]["texts"][0] == evil


def test_what_takes_much_room_is_cut_and_said(
    looked: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = looked()  # 9 steps, 8 slots of 4 numbers
    monkeypatch.setattr(page, "LEAST_COLUMNS", 1)
    monkeypatch.setattr(page, "ROOM", 9 * 8 * 2)
    data = page.data(found)
    assert data["memories"][0]["rows"]["width"] == 2
    assert any("first 2 of 4" in note for note in data["memories"][0]["notes"])
    monkeypatch.setattr(page, "ROOM", 10)
    assert page.data(found)["memories"][0]["rows"] is None
    monkeypatch.setattr(page, "MOST_STEPS", 5)
    assert page.data(found)["steps"] == 5
    assert any("first 5 of 9" in note for note in page.data(found)["notes"])


def test_panels_share_one_axis_of_time(looked: Callable[..., Sample]) -> None:
    found = looked()
    figure = picture.draw(found)
    titles = [axis.get_ylabel().partition("\n")[0] for axis in figure.axes]
    assert titles == ["input", "target", "output", "right?", "read", "write", "contents"]
    assert {axis.get_xlim() for axis in figure.axes} == {(-0.5, found.steps - 0.5)}


def test_words_and_no_memory(looked: Callable[..., Sample], tmp_path: Path) -> None:
    task = {"name": "babi", "source": "generated", "size": "1k", "families": ["single_fact"]}
    found = looked({"name": "none"}, task, split="test")
    texts = [text.get_text() for axis in picture.draw(found).axes for text in axis.texts]
    assert found.inputs[0].texts[0] in texts
    files.write(found, tmp_path)


def test_segments_are_marked(looked: Callable[..., Sample]) -> None:
    controller = {"name": "transformer", "width": 8, "heads": 2, "layers": 1, "segment": 3}
    figure = picture.draw(looked(task=COPY, controller=controller))
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [2.5, 5.5]


def test_alike_contents_have_alike_colours() -> None:
    rows = np.zeros((1, 4, 3), np.float32)
    rows[0, 1] = rows[0, 2] = [1, -1, 2]
    rows[0, 3] = [-2, 1, 0]
    pixels = colours.by_content(rows)[0].tolist()
    assert pixels[0] == [255, 255, 255]
    assert pixels[1] == pixels[2] != pixels[3]
    assert (colours.by_content(np.zeros((2, 2, 3), np.float32)) == 255).all()


def test_nothing_is_told_apart_from_zero() -> None:
    shades = colours.shade(np.array([0, 1, -1, np.nan], np.float32), colours.INK)
    assert [tuple(shade) for shade in shades.tolist()] == [
        colours.WHITE,
        colours.INK,
        colours.MINUS,
        colours.EMPTY,
    ]
