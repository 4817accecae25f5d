"""Glyphs: what is drawn, what is left out, and that no two drawings are equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mannlab.datasets import glyphs
from mannlab.datasets.glyphs import SANS, Alphabet

LATIN = Alphabet("latin", SANS, ((0x41, 0x4A),))
GREEK = Alphabet("greek", SANS, ((0x391, 0x39A),), held_out=True)


@pytest.fixture(scope="module")
def drawings():
    return glyphs.draw(40, [LATIN, GREEK])


def test_shape_and_range(drawings):
    count = len(drawings.names)
    assert drawings.images.shape == (count, 20, 40, 40)
    assert drawings.images.dtype == np.uint8
    ink = (drawings.images > 127).mean((2, 3))
    assert ink.min() > 0.02
    assert ink.max() < 0.4
    assert drawings.images[:, :, [0, -1]].mean() < 1, "the border is paper"


def test_look_alikes_count_once_and_training_keeps_its_own(drawings):
    kept = {int(name.partition("/")[2], 16) for name in drawings.names}
    assert {0x41, 0x42, 0x45, 0x48} <= kept, "Latin A, B, E, H"
    assert not {0x391, 0x392, 0x395, 0x397} & kept, "Greek Alpha, Beta, Epsilon, Eta look the same"
    assert {0x394, 0x398} <= kept, "Greek Delta and Theta are new"
    for name, held_out in zip(drawings.names, drawings.held_out, strict=True):
        assert held_out == name.startswith("greek/")


def test_no_two_drawings_are_equal(drawings):
    flat = drawings.images.reshape(-1, 40 * 40)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_drawings_of_a_character_resemble_each_other(drawings):
    flat = drawings.images.reshape(len(drawings.names), 20, -1).astype(float)
    blurred = flat.reshape(-1, 20, 8, 5, 8, 5).mean((3, 5)).reshape(len(flat), 20, 64)
    unit = blurred / np.linalg.norm(blurred, axis=-1, keepdims=True)
    means = unit.mean(1)
    nearest = (unit @ means.T).argmax(-1)
    assert (nearest == np.arange(len(flat))[:, None]).mean() > 0.9


def test_thickness_varies(drawings):
    ink = drawings.images.sum((2, 3), dtype=float)
    assert (ink.max(1) / ink.min(1)).mean() > 1.4


def test_it_is_the_same_each_time(drawings):
    assert np.array_equal(glyphs.draw(40, [LATIN, GREEK]).images, drawings.images)


def test_characters_that_the_font_lacks_are_left_out():
    lacking = Alphabet("chinese", SANS, ((0x4E00, 0x4E10),))
    assert glyphs.render(lacking) == []
    marks = Alphabet("marks", SANS, ((0x300, 0x310), (0x20, 0x20)))
    assert glyphs.render(marks) == [], "neither marks nor blanks are characters"


def test_thinning_keeps_the_line_and_takes_the_flesh():
    shapes = torch.zeros(2, 20, 30, dtype=torch.bool)
    shapes[0, 8:13, 4:26] = True
    shapes[1, 3:17, 10] = True
    thinned = glyphs.thin(shapes)
    assert thinned[0].sum(0).max() == 1, "a bar becomes a line"
    assert thinned[0].any(0)[8:22].all(), "of its length, whole"
    assert 12 <= thinned[1].sum() <= 14, "a line stays one"
    assert not (thinned & ~shapes).any()


def test_turned_shapes_are_alike():
    field = torch.zeros(3, 1, 64, 64)
    field[0, 0, 10:50, 20:26] = 1
    field[0, 0, 10:16, 20:50] = 1
    field[1, 0] = field[0, 0].rot90()
    field[2, 0, 30:34, 10:54] = 1
    assert glyphs.unlike(field) == [0, 2]


def test_loading_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path))
    first = glyphs.load(40, [GREEK])
    monkeypatch.setattr(glyphs, "draw", None)
    assert np.array_equal(glyphs.load(40, [GREEK]).images, first.images)


def test_alphabets_have_names_of_their_own_and_some_are_held_out():
    names = [alphabet.name for alphabet in glyphs.ALPHABETS]
    assert len(set(names)) == len(names)
    assert 8 <= sum(alphabet.held_out for alphabet in glyphs.ALPHABETS) <= len(names) // 2


@pytest.mark.slow
def test_the_whole_set_is_large_enough():
    drawings = glyphs.load(40)
    assert len(drawings.names) >= 1000
    assert drawings.held_out.sum() >= 200
    assert len(drawings.alphabets) >= 30
    parts = {name.partition("/")[0]: set() for name in drawings.names}
    for name, held_out in zip(drawings.names, drawings.held_out, strict=True):
        parts[name.partition("/")[0]].add(bool(held_out))
    assert all(len(part) == 1 for part in parts.values()), "no alphabet lies in both parts"
    flat = drawings.images.reshape(-1, 40 * 40)
    assert len(np.unique(flat, axis=0)) == len(flat)
    assert (flat.max(1) > 200).all(), "every drawing shows"
