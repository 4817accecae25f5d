"""Errors meant for people: what was wrong, and how to mend it."""

from __future__ import annotations

import pytest

from mannlab.errors import CheckpointError, ConfigError, DataError, MannlabError, at_least, choices, require


def test_message_holds_what_and_hint() -> None:
    error = MannlabError("task.bits: 0 is not allowed.", "It must be at least 1.")
    assert str(error) == "task.bits: 0 is not allowed.\nIt must be at least 1."
    assert (error.what, error.hint) == ("task.bits: 0 is not allowed.", "It must be at least 1.")


def test_message_without_hint_is_one_line() -> None:
    assert str(MannlabError("Gone.")) == "Gone."


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError])
def test_one_except_clause_catches_all(kind: type[MannlabError]) -> None:
    with pytest.raises(MannlabError, match="what"):
        raise kind("what")


def test_choices_puts_the_closest_match_first() -> None:
    assert choices("dens", ["sparse", "dense"], "memories") == (
        "Did you mean 'dense'? memories: dense, sparse"
    )


def test_choices_without_a_close_match_lists_all_sorted() -> None:
    assert choices("xyz", ["sparse", "dense"]) == "known: dense, sparse"
    assert choices("xyz", []) == "known: (none)"


def test_require() -> None:
    require(True, "never seen")
    with pytest.raises(ConfigError, match="seen\nhint"):
        require(False, "seen", "hint")


def test_at_least_names_the_first_option_that_is_too_small() -> None:
    at_least("task", {"bits": (1, 1), "items": (5, 2)})
    with pytest.raises(ConfigError, match=r"task\.items: 1 is not allowed(.|\n)*at least 2"):
        at_least("task", {"bits": (1, 1), "items": (1, 2), "more": (0, 9)})
