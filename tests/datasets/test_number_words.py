"""Numbers in words: each in one part, whatever the options."""

from __future__ import annotations

import pytest

from mannlab.datasets.number_words import number_pairs, part_of
from mannlab.errors import ConfigError

pytest.importorskip("num2words")


def test_they_are_real_words_of_both_languages() -> None:
    parts = number_pairs(["en", "de"], 300, 9999)
    spelled = dict(zip(parts["train"].sources, parts["train"].targets, strict=True))
    assert spelled["twenty-one"] == "einundzwanzig"
    assert len(parts["train"]) == 300
    assert len(set(parts["train"].sources)) == 300


def test_no_number_is_in_two_parts_whatever_the_options() -> None:
    few, many = number_pairs(["en", "de"], 200, 999), number_pairs(["en", "fr"], 900, 9999)
    for one in (few, many):
        for other in (few, many):
            assert not set(one["train"].sources) & set(other["test"].sources)
            assert not set(one["train"].sources) & set(other["val"].sources)
            assert not set(one["val"].sources) & set(other["test"].sources)
    assert all(part_of(number) == "train" for number in range(100))


def test_they_are_the_same_each_time_and_end_where_all_are_used() -> None:
    parts = number_pairs(["en", "de"], 5000, 400)
    assert parts["train"].places == number_pairs(["en", "de"], 5000, 400)["train"].places
    assert 320 <= sum(map(len, parts.values())) <= 401


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.languages: there is no language 'xx'"):
        number_pairs(["en", "xx"], 10, 999)
    with pytest.raises(ConfigError, match=r"task\.largest"):
        number_pairs(["en", "de"], 10, 50)
    with pytest.raises(ConfigError, match=r"cannot say \d+ in 'am'"):
        number_pairs(["en", "am"], 100, 999_999)
    with pytest.raises(ConfigError, match=r"task\.pairs"):
        number_pairs(["en", "de"], 0, 999)
