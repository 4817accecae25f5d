"""Drawings turned, moved and brought to a small size, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def placed(drawings: Tensor, angle: Tensor, shift: Tensor, size: int) -> Tensor:
    """Turn each drawing about its middle, then move it, as an image of ``size`` x ``size``.

    Args:
        drawings: ``uint8[n, 2 size, 2 size]``. Where nothing is moved, each pixel is the mean of four.
        angle: ``float[n]``, radians, clockwise.
        shift: ``float[2, n]``, rightwards and downwards, where the image is 2 wide.

    Returns:
        ``float[n, 1, size, size]`` in [0, 1].
    """
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = (axis.flatten() for axis in torch.meshgrid(line, line, indexing="ij"))
    grid = torch.empty(len(drawings), size * size, 2)
    cos, sin = angle.cos().float().unsqueeze(1), angle.sin().float().unsqueeze(1)
    # Where a pixel of the small image lies in the drawing: move back, then turn back.
    left, down = x - shift[0].unsqueeze(1), y - shift[1].unsqueeze(1)
    torch.add(cos * left, sin * down, out=grid[..., 0])
    torch.sub(cos * down, sin * left, out=grid[..., 1])
    pixels = drawings.unsqueeze(1).float().mul_(1 / 255)
    return grid_sample(pixels, grid.unflatten(1, (size, size)), align_corners=False)
