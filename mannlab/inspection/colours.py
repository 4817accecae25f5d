"""Colours that pictures and animations share with the page, and numbers as colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mannlab.inspection.sample import Floats, Sample

WHITE = (255, 255, 255)
INK, QUIET, LINE, EMPTY = (28, 36, 48), (87, 96, 106), (213, 219, 227), (238, 242, 246)
READ, WRITE = (31, 95, 168), (194, 87, 26)
PLUS, MINUS = (18, 118, 90), (163, 40, 122)
RIGHT, WRONG, CURSOR = (26, 127, 55), (207, 34, 46), (130, 80, 223)

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]


def shade(values: Floats, colour: Colour, below: Colour = MINUS, nothing: Colour = EMPTY) -> Pixels:
    """Numbers as colours on white: 1 is ``colour``, -1 is ``below``, NaN is ``nothing``; ``[..., 3]``."""
    strength = np.clip(np.abs(np.nan_to_num(values)), 0, 1)[..., None]
    ends = np.where(np.nan_to_num(values)[..., None] < 0, np.array(below), np.array(colour))
    mixed = 255 + (ends - 255) * strength
    return np.where(np.isnan(values)[..., None], np.array(nothing), np.rint(mixed)).astype(np.uint8)


def cells(values: Floats) -> Pixels:
    """What comes in and goes out."""
    return shade(values / max(1.0, float(np.nanmax(np.abs(values), initial=0))), INK)


def largest(rows: Floats) -> float:
    """The magnitude to draw darkest: larger than nearly all, so that one number does not pale the rest."""
    there = np.abs(rows[np.abs(rows) > 1e-4])
    return float(np.quantile(there, 0.98)) if there.size else 1.0


def verdicts(sample: Sample) -> Pixels:
    """Green, red or empty for each step, ``[T, 3]``."""
    found = np.where(sample.right[:, None], np.array(RIGHT), np.array(WRONG))
    return np.where(sample.scored[:, None], found, np.array(EMPTY)).astype(np.uint8)


def by_content(rows: Floats) -> Pixels:
    """``[T, S, W]`` to a colour for each slot and step: near contents, near colours; nothing is white.

    The colour is the place along the three directions in which contents differ most (singular vectors), its
    strength the length of what is held.
    """
    flat = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    held = flat[lengths[:, 0] > 1e-3]
    if len(held) == 0:
        return np.full((*rows.shape[:2], 3), 255, np.uint8)
    centre = held.mean(0)
    sampled = held[:: max(1, len(held) // 4000)] - centre
    directions: Any = np.linalg.svd(sampled, full_matrices=False)[2][:3]
    placed = (flat - centre) @ directions.T
    placed = np.pad(placed, ((0, 0), (0, 3 - placed.shape[1])))
    spread = np.maximum(np.quantile(np.abs(placed[lengths[:, 0] > 1e-3]), 0.95, axis=0), 1e-9)
    hue = 0.5 + 0.45 * np.clip(placed / spread, -1, 1)
    strength = np.clip(lengths / max(np.quantile(lengths[lengths > 1e-3], 0.5), 1e-9), 0, 1)
    return np.rint(255 * (1 - strength * (1 - hue))).astype(np.uint8).reshape(*rows.shape[:2], 3)


def unit(colour: Colour) -> tuple[float, float, float]:
    """As matplotlib wants it."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
