"""Byte pairs: no character is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mannlab.datasets.translation import Vocabulary

pytest.importorskip("tokenizers")

from mannlab.datasets.bpe import train_pairs

LEARNT = Vocabulary(train_pairs(["the cat sat", "die Katze saß"] * 3, 300, "test").to_str())


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_every_text_comes_back(texts: list[str]) -> None:
    encoded = LEARNT.encode(texts)
    assert [LEARNT.decode(tokens) for tokens in encoded] == texts
    assert all(0 <= token < LEARNT.separator for tokens in encoded for token in tokens)


def test_marks_are_no_text_and_words_learnt_are_short() -> None:
    (cat,) = LEARNT.encode(["cat"])
    assert len(cat) < 3
    assert LEARNT.decode([*cat, LEARNT.separator, LEARNT.end]) == "cat"
    assert LEARNT.size == LEARNT.end + 1
    assert LEARNT.name(LEARNT.end) == "■"
