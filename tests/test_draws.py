"""Randomness by counter: a sample is a function of (seed, stream, index) alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.draws import Draws

DRAWS = Draws(seed=1, stream="train")


def drawn(method: str, start: int, count: int, draws: Draws = DRAWS) -> np.ndarray:
    arguments = {"words": (5,), "bits": (70,), "uniform": (3,), "integers": (-2, 9)}[method]
    rows: np.ndarray = getattr(draws, method)(start, count, *arguments)
    return rows


METHODS = ["words", "bits", "uniform", "integers"]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 2**40), before=st.integers(0, 9), count=st.integers(1, 9))
def test_rows_depend_on_index_alone(method: str, start: int, before: int, count: int) -> None:
    alone = drawn(method, start + before, count)
    together = drawn(method, start, before + count + 3)
    np.testing.assert_array_equal(alone, together[before : before + count])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", [Draws(2, "train"), Draws(1, "val"), Draws(1, "train_length_30")])
def test_seeds_and_streams_are_independent(method: str, other: Draws) -> None:
    ours, theirs = drawn(method, 0, 500).ravel(), drawn(method, 0, 500, other).ravel()
    correlation = np.corrcoef(ours.astype(float), theirs.astype(float))[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(ours))


def test_purposes_are_independent() -> None:
    assert not np.array_equal(DRAWS.words(0, 4, 4, "bits"), DRAWS.words(0, 4, 4, "length"))


def test_neighbouring_samples_share_no_words() -> None:
    words = DRAWS.words(0, 1000, 6)
    assert len(np.unique(words)) == words.size


def test_same_arguments_give_the_same_numbers_for_ever() -> None:
    # Written down once: a change here changes every data stream, and so every published number.
    assert DRAWS.words(3, 1, 2).tolist() == [[4037764406451769471, 4051316460159890265]]
    assert DRAWS.bits(0, 1, 12).tolist() == [[1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]]
    assert DRAWS.generator(7).integers(1_000_000) == 521876


@pytest.mark.parametrize("bits", [1, 63, 64, 65, 256, 257])
def test_bits_have_the_asked_width_and_are_fair(bits: int) -> None:
    drawn_bits = DRAWS.bits(10, 4000, bits)
    assert drawn_bits.shape == (4000, bits)
    assert drawn_bits.dtype == np.uint8
    assert set(np.unique(drawn_bits)) == {0, 1}
    assert abs(drawn_bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(drawn_bits.size)


def test_uniform_fills_the_unit_interval_evenly() -> None:
    numbers = DRAWS.uniform(0, 20_000, 2).ravel()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    expected = len(numbers) / 20
    assert ((counts - expected) ** 2 / expected).sum() < 60  # chi-squared, 19 degrees: p < 1e-5


def test_integers_reach_both_ends_and_are_even() -> None:
    numbers = DRAWS.integers(0, 12_000, -1, 4)
    assert numbers.dtype == np.int64
    values, counts = np.unique(numbers, return_counts=True)
    assert values.tolist() == [-1, 0, 1, 2, 3, 4]
    assert np.abs(counts - 2000).max() < 250


def test_one_possible_integer() -> None:
    assert DRAWS.integers(0, 5, 3, 3).tolist() == [3] * 5


def test_generators_are_repeatable_and_differ_by_index() -> None:
    first, again, other = (DRAWS.generator(i).random(50) for i in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(first, other).any()


def test_a_generator_does_not_run_into_the_next_samples_block() -> None:
    # A million draws of sample 4 do not meet the first draws of sample 5.
    long, following = DRAWS.generator(4), DRAWS.generator(5).random(8)
    assert not np.isin(long.random(1_000_000), following).any()


@pytest.mark.parametrize("bucket", [1, 3, 8])
def test_a_bucket_of_samples_shares_an_integer(bucket: int) -> None:
    whole = DRAWS.integers(0, 8 * bucket, 0, 10**6, bucket=bucket).reshape(8, bucket)
    assert (whole == whole[:, :1]).all()
    np.testing.assert_array_equal(whole[:, 0], DRAWS.integers(0, 8, 0, 10**6))
    part = DRAWS.integers(bucket - 1, bucket + 1, 0, 10**6, bucket=bucket)
    np.testing.assert_array_equal(part, whole.ravel()[bucket - 1 : 2 * bucket])
