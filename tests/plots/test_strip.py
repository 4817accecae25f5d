"""The episode strip: every image with its label and its answer, in the right colours."""

from __future__ import annotations

import io

import pytest
import torch
from matplotlib.colors import to_hex

from mannlab.plots.strip import FIRST, RIGHT, WRONG, draw_strip

IMAGES = torch.arange(12).reshape(12, 1, 1).expand(12, 20, 20) / 12


def cells(figure):
    return figure.axes


def colour(axis):
    return to_hex(axis.spines["left"].get_edgecolor())


def test_labels_answers_and_frames():
    figure = draw_strip(IMAGES[:3], ["1", "2", "1"], ["2", "2", "1"], [1, 1, 2])
    assert [axis.get_title() for axis in cells(figure)] == ["1 ×1", "2 ×1", "1 ×2"]
    assert [axis.get_xlabel() for axis in cells(figure)] == ["2 ✗", "2 ✓", "1 ✓"]
    assert [to_hex(axis.xaxis.label.get_color()) for axis in cells(figure)] == [WRONG, RIGHT, RIGHT]
    assert [colour(axis) for axis in cells(figure)] == [FIRST, FIRST, RIGHT]
    assert "2 of 3 right" in [text.get_text() for text in figure.texts]


def test_a_wrong_answer_that_was_no_guess_has_a_red_frame():
    figure = draw_strip(IMAGES[:1], ["1"], ["2"], [3])
    assert colour(cells(figure)[0]) == WRONG


def test_images_come_in_order_row_by_row():
    figure = draw_strip(IMAGES, ["1"] * 12, ["1"] * 12, list(range(1, 13)))
    shown = [float(axis.images[0].get_array().mean()) for axis in cells(figure)]
    assert shown == pytest.approx([k / 12 for k in range(12)])
    tops = [axis.get_position().y1 for axis in cells(figure)]
    assert tops[9] == pytest.approx(tops[0])
    assert tops[10] < cells(figure)[0].get_position().y0, "the eleventh starts a row"


@pytest.mark.parametrize(("count", "label"), [(1, "1"), (12, "12"), (12, "abcde")])
def test_nothing_overlaps_or_falls_off(count, label):
    figure = draw_strip(IMAGES[:count], [label] * count, [label] * count, list(range(1, count + 1)))
    figure.savefig(io.BytesIO(), format="png")
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axis.title.get_window_extent() for axis in figure.axes]
    boxes += [axis.xaxis.label.get_window_extent() for axis in figure.axes]
    for k, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_a_long_episode_is_cut():
    images = IMAGES[:1].expand(130, 20, 20)
    figure = draw_strip(images, ["1"] * 130, ["1"] * 129 + ["2"], list(range(1, 131)))
    assert len(figure.axes) == 100
    assert "129 of 130 right (first 100 shown)" in [text.get_text() for text in figure.texts]


def test_where_nothing_was_asked_no_answer_is_shown():
    figure = draw_strip(IMAGES[:3], ["1", "2", "1"], ["2", "2", "1"], [1, 1, 2], [False, False, True])
    assert [axis.get_xlabel() for axis in cells(figure)] == ["", "", "1 ✓"]
    assert "1 of 1 right" in [text.get_text() for text in figure.texts]
