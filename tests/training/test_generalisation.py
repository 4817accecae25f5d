"""Which results become the picture of metrics against size."""

from __future__ import annotations

from typing import Any

import pytest

from mannlab.registry import build
from mannlab.training.generalisation import generalisation, largest_trained, main_label, reached_by, sizes


def metrics(*splits: str) -> dict[str, float]:
    return {
        f"{split}/{name}": float(len(split))
        for split in splits
        for name in ("cost_bits_per_sequence", "bit_errors_per_sequence", "loss_nats")
    }


def test_sizes_and_kinds_come_from_the_splits() -> None:
    task = build("task", "repeat_copy", lengths=[4, 20], repeats=[30])
    measured = metrics("test", "test_length_4", "test_length_20", "test_repeats_30")
    figure = generalisation(task, measured, trained=10)
    watched, main = figure.axes
    assert (watched.get_ylabel(), main.get_ylabel()) == ("bit errors per sequence", "cost bits per sequence")
    lines = {line.get_label(): line.get_xdata() for line in watched.get_lines()}
    assert list(lines["length"]) == [4, 20]
    assert list(lines["repeats"]) == [30]
    assert lines["trained up to 10"][0] == 10
    assert main_label(task) in lines


@pytest.mark.parametrize("measured", [{}, metrics("test"), metrics("test", "test_length_4")])
def test_fewer_than_two_sizes_make_no_picture(measured: dict[str, float]) -> None:
    assert generalisation(build("task", "copy", lengths=[4, 20]), measured) is None


@pytest.mark.parametrize(
    ("curriculum", "state", "largest"),
    [
        (None, None, 20),
        (None, {"rises": []}, 20),
        (True, None, None),
        (True, {"rises": [[0, 20], [640, 40]]}, 40),
    ],
)
def test_the_largest_trained_size(curriculum: Any, state: Any, largest: int | None) -> None:
    assert largest_trained(build("task", "copy", curriculum=curriculum), reached_by(state)) == largest


@pytest.mark.parametrize(
    ("curriculum", "reached", "ends"),
    [(None, None, (6, 30)), (True, 8, (6, 8)), (True, 4, (4,)), (True, None, ())],
)
def test_each_kind_of_size_ends_where_it_was_trained(
    curriculum: Any, reached: int | None, ends: tuple[int, ...]
) -> None:
    task = build("task", "repeat_copy", max_length=6, max_repeats=30, curriculum=curriculum)
    measured = metrics("test_length_20", "test_repeats_20")
    figure = generalisation(task, measured, largest_trained(task, reached))
    labels = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    kinds = ("length ", "repeats ") if len(ends) > 1 else ("",)
    wanted = [f"{kind}trained up to {end}" for kind, end in zip(kinds, ends, strict=False)]
    assert [label for label in labels if "trained up to" in label] == wanted
    for label, end, kind in zip(wanted, ends, kinds, strict=False):
        assert labels[label].get_xdata()[0] == end
        assert not kind or labels[label].get_color() == labels[kind.strip()].get_color()


def test_what_the_summary_says_of_sizes() -> None:
    copy = build("task", "copy", lengths=[4, 20])
    assert sizes(copy, None) == {"levels": {"test_length_4": 4, "test_length_20": 20}, "trained": 20}
    assert sizes(build("task", "copy", lengths=[]), None) == {"levels": {}, "trained": None}
