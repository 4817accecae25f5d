"""Layers that make vectors of what comes in, against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mannlab.contracts import Bag, Classes, Image, StreamSpec, Vector
from mannlab.kernels.placed.naive import placed_sum
from mannlab.model.encoders import BagEncoder, ConvEncoder, FeatureNorm, StreamEncoder


@settings(max_examples=30, deadline=None)
@given(
    sentences=st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=6),
    width=st.integers(1, 4),
    positions=st.booleans(),
    embeddings=st.integers(1, 3),
)
def test_a_bag_is_the_formula(sentences, width, positions, embeddings):
    torch.manual_seed(0)
    encoder = BagEncoder(Bag(5, 5, width, positions, embeddings)).double()
    padded = torch.tensor([[*words, *[-1] * (5 - len(words))] for words in sentences])
    out = encoder(padded.unsqueeze(0))
    weight = encoder.weight
    parts = torch.arange(1, width + 1) / width if positions else None
    each = [placed_sum(table, padded, parts) for table in weight.chunk(embeddings, dim=1)]
    wanted = torch.cat(each, dim=1).unsqueeze(0)
    assert out.shape == (1, len(sentences), embeddings * width)
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


def test_features_are_normalised_over_the_batch_in_training_and_by_those_before_elsewhere():
    norm = FeatureNorm(2, momentum=0.25, eps=0.0).double()
    one = torch.tensor([[1.0, 4.0], [3.0, 8.0]], dtype=torch.float64)
    assert torch.equal(norm.eval()(one), one)  # nothing is known yet
    torch.testing.assert_close(norm.train()(one), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).double())
    two = torch.tensor([[9.0, 0.0], [5.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(norm(two), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double())
    # Weights of the two batches: 0.25 * 0.75 and 0.25, of 0.4375.
    weights = torch.tensor([0.1875, 0.25], dtype=torch.float64) / 0.4375
    mean = weights[0] * one.mean(0) + weights[1] * two.mean(0)
    square = weights[0] * one.square().mean(0) + weights[1] * two.square().mean(0)
    wanted = (two - mean) / (square - mean.square()).sqrt()
    torch.testing.assert_close(norm.eval()(two), wanted)
    # A batch of one has no variance.
    torch.testing.assert_close(norm.train()(two[:1]), wanted[:1])


def test_gradients_pass_through_the_statistics_of_a_batch():
    torch.manual_seed(0)  # five numbers that lie close together would count the eps
    norm = FeatureNorm(2).double()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)
    (grad,) = torch.autograd.grad(norm(x).square().sum(), x)
    assert grad.abs().max() < 1e-4  # the sum of squares is what it is, whatever the features


def test_padding_is_neither_encoded_nor_normalised_with():
    torch.manual_seed(0)
    encoder = StreamEncoder(StreamSpec({"image": Image(8, 8, 1, "conv")}, Classes(2)))
    pictures = torch.rand(2, 3, 1, 8, 8)
    valid = torch.tensor([[1, 1, 1], [1, 0, 0]])
    kept, changed = pictures.clone(), pictures.clone()
    changed[1, 1:] = 7
    seen: list[int] = []
    encoder.layers["image"].register_forward_hook(lambda _, given, out: seen.append(len(out)))
    one, other = (encoder({"image": each}, valid) for each in (kept, changed))
    assert seen == [4, 4]
    torch.testing.assert_close(one, other)
    assert (one[1, 1:] == 0).all()
    real = one[valid.bool()]
    torch.testing.assert_close(real.mean(0), torch.zeros(real.shape[1]), atol=1e-5, rtol=0)
    encoder.eval()
    torch.testing.assert_close(encoder({"image": kept}, valid)[0], encoder({"image": kept})[0])


@pytest.mark.parametrize("count", [1, 4, 11])
def test_a_few_pictures_at_a_time_make_the_same_features_and_gradients(count):
    torch.manual_seed(0)
    encoder = ConvEncoder(Image(12, 12, 1, "conv")).double()
    x = torch.randn(count, 1, 12, 12, dtype=torch.float64)
    weights = torch.randn(count, encoder.output_size, dtype=torch.float64)

    def results():
        encoder.zero_grad()
        features = encoder(x)
        (features * weights).sum().backward()
        return [features.detach(), *(parameter.grad for parameter in encoder.parameters())]

    whole = results()
    encoder.chunk = 4
    torch.testing.assert_close(results(), whole)


def test_pictures_of_strokes_point_different_ways():
    torch.manual_seed(0)
    encoder = ConvEncoder(Image(20, 20))
    pictures = (torch.rand(64, 1, 20, 20) < 0.08).float()
    features = torch.nn.functional.normalize(encoder(pictures), dim=1)
    between = (features @ features.T).fill_diagonal_(0)
    assert between.mean().abs() < 0.1
    # Elsewhere no picture depends on those beside it.
    alone = encoder.eval()(pictures[:1])
    torch.testing.assert_close(encoder(pictures)[:1], alone)


def test_words_start_as_far_apart_as_asked():
    assert BagEncoder(Bag(500, 3, 40, deviation=0.3)).weight.std().item() == pytest.approx(0.3, rel=0.05)
