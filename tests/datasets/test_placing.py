"""Drawings turned, moved and made small."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from mannlab.datasets.placing import placed

DRAWINGS = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SMALL = avg_pool2d(DRAWINGS.unsqueeze(1).float() / 255, 2)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_exact_and_clockwise(quarters: int) -> None:
    turned = placed(DRAWINGS, torch.full((3,), quarters * math.pi / 2), torch.zeros(2, 3), 8)
    torch.testing.assert_close(turned, SMALL.rot90(-quarters, (2, 3)), atol=1e-5, rtol=0)


def test_shifts_are_right_and_down() -> None:
    pixel = 2 / 8
    moved = placed(DRAWINGS, torch.zeros(3), torch.tensor([[pixel] * 3, [2 * pixel] * 3]), 8)
    torch.testing.assert_close(moved[..., 2:, 1:], SMALL[..., :-2, :-1], atol=1e-5, rtol=0)
    assert moved[..., :2, :].abs().max() < 1e-5
