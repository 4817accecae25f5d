"""Symbols of a step as one vector: against the formula, one symbol at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.contracts import Bag, Classes, StreamSpec, Vector
from mannlab.model.encoders import BagEncoder, StreamEncoder


def naive(symbols: list[int], weight: torch.Tensor, positions: bool) -> torch.Tensor:
    """Section 4.1 of Sukhbaatar et al. 2015, literally."""
    d, J = weight.shape[1], len(symbols)
    total = torch.zeros(d, dtype=weight.dtype)
    for j, symbol in enumerate(symbols, start=1):
        for k in range(1, d + 1):
            share = (1 - j / J) - (k / d) * (1 - 2 * j / J) if positions else 1.0
            total[k - 1] = total[k - 1] + share * weight[symbol, k - 1]
    return total


@settings(max_examples=30, deadline=None)
@given(
    sentences=st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=6),
    width=st.integers(1, 4),
    positions=st.booleans(),
)
def test_a_bag_is_the_formula(sentences, width, positions):
    torch.manual_seed(0)
    encoder = BagEncoder(Bag(5, 5, width, positions)).double()
    padded = torch.tensor([[*words, *[-1] * (5 - len(words))] for words in sentences])
    out = encoder(padded.unsqueeze(0))
    weight = encoder.weight
    wanted = torch.stack([naive(words, weight, positions) for words in sentences]).unsqueeze(0)
    assert out.shape == (1, len(sentences), width)
    torch.testing.assert_close(out, wanted)
    found = torch.autograd.grad(out.sin().sum(), weight)
    torch.testing.assert_close(found, torch.autograd.grad((wanted.sin().sum() + 0 * weight.sum()), weight))


def test_order_counts_with_positions_alone():
    one, other = torch.tensor([[[1, 2, 3]]]), torch.tensor([[[3, 2, 1]]])
    plain, placed = BagEncoder(Bag(4, 3, 8, positions=False)), BagEncoder(Bag(4, 3, 8))
    torch.testing.assert_close(plain(one), plain(other))
    assert not torch.allclose(placed(one), placed(other))


def test_a_bag_lies_beside_other_channels():
    encoder = StreamEncoder(StreamSpec({"v": Vector(2), "words": Bag(7, 3, width=5)}, Classes(2)))
    assert encoder.output_size == 7
    words = torch.full((2, 4, 3), -1)
    out = encoder({"v": torch.ones(2, 4, 2), "words": words})
    assert out.tolist() == torch.cat([torch.ones(2, 4, 2), torch.zeros(2, 4, 5)], -1).tolist()
