"""Drawings: the way to the cache and back, and the fixed shuffle."""

from __future__ import annotations

import numpy as np

from mannlab.datasets.drawings import Drawings

NAMES = [f"Greek/character{k:02}" for k in range(24)] + [f"Korean/character{k:02}" for k in range(40)]
FIRST = ["Korean/character02", "Korean/character01", "Korean/character06"]


def make(names):
    held_out = np.array([name.startswith("Korean") for name in names])
    return Drawings(np.zeros((len(names), 20, 4, 4), np.uint8), names, held_out)


def test_arrays_and_back():
    drawings = make(NAMES)
    back = Drawings.of(drawings.arrays())
    assert back.names == NAMES
    assert np.array_equal(back.held_out, drawings.held_out)
    assert (back.side, back.alphabets) == (4, ["Greek", "Korean"])


def test_the_shuffle_is_fixed_and_mixes():
    order = make(NAMES).shuffled()
    assert sorted(order) == list(range(64))
    assert [NAMES[k] for k in order[:3]] == FIRST, "the split must never change between versions"
    assert 5 < make(NAMES).held_out[order[:32]].sum() < 30


def test_the_shuffle_depends_on_names_alone():
    order = make(NAMES).shuffled()
    turned = NAMES[::-1]
    assert [NAMES[k] for k in order] == [turned[k] for k in make(turned).shuffled()]
