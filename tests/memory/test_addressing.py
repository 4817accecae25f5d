"""The addressing functions, each against what its equation says."""

from __future__ import annotations

import torch

from mannlab.memory import addressing


def test_cosine_is_one_for_parallel_and_minus_one_for_opposite():
    memory = torch.tensor([[[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0]]])
    got = addressing.cosine_similarity(torch.tensor([[[5.0, 0.0]]]), memory)
    torch.testing.assert_close(got, torch.tensor([[[1.0, -1.0, 0.0]]]), atol=1e-6, rtol=0)


def test_shift_moves_the_way_the_equation_does():
    weights = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0]]])
    forward = addressing.circular_shift(weights, torch.tensor([[[0.0, 0.0, 0.0, 1.0, 0.0]]]))
    assert forward[0, 0].tolist() == [0, 1, 0, 0, 0]
    back_two = addressing.circular_shift(weights, torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0]]]))
    assert back_two[0, 0].tolist() == [0, 0, 0, 1, 0]


def test_no_shift_leaves_weights_alone():
    weights = torch.rand(2, 3, 4)
    assert addressing.circular_shift(weights, torch.ones(2, 3, 1)) is weights


def test_sharpening_squares_and_renormalises():
    weights = torch.tensor([[[0.2, 0.8]]])
    got = addressing.sharpen(weights, torch.tensor([[2.0]]))
    torch.testing.assert_close(got, torch.tensor([[[0.04, 0.64]]]) / 0.68)


def test_sharpening_survives_any_exponent():
    weights = torch.full((1, 1, 8), 1 / 8).requires_grad_()
    got = addressing.sharpen(weights, torch.tensor([[1e4]]))
    torch.testing.assert_close(got, torch.full((1, 1, 8), 1 / 8))
    got.square().sum().backward()
    assert torch.isfinite(weights.grad).all()


def test_one_and_several_write_heads_agree():
    memory, erase, add = torch.rand(2, 5, 3), torch.rand(2, 1, 3), torch.rand(2, 1, 3)
    weights = torch.softmax(torch.rand(2, 1, 5), -1)
    alone = addressing.erase_add(memory, weights, erase, add)
    silent = torch.zeros(2, 1, 5)
    together = addressing.erase_add(
        memory, torch.cat([weights, silent], 1), erase.repeat(1, 2, 1), add.repeat(1, 2, 1)
    )
    torch.testing.assert_close(alone, together)
