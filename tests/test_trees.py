"""Nested mappings."""

from __future__ import annotations

from mannlab.trees import flat


def test_flat() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": (2, 3)}, "e": None}) == {"a.b.c": 1, "a.d": [2, 3], "e": None}
    assert flat({}) == {}


def test_empty_mappings_can_be_kept() -> None:
    tree = {"a": {"b": {}, "c": 1}}
    assert flat(tree) == {"a.c": 1}
    assert flat(tree, empty=True) == {"a.b": {}, "a.c": 1}
