"""A stand-in for Omniglot that needs no download: characters of the fonts that matplotlib brings.

Each character is thinned to its skeleton, as a pen would trace it, and drawn 20 times with strokes that
bend, lean and vary in thickness. Scripts and Unicode blocks play the part of alphabets.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, max_pool2d, normalize, pad

from mannlab.datasets.cache import cached
from mannlab.datasets.drawings import DRAWINGS, Drawings
from mannlab.progress import progress

log = logging.getLogger(__name__)

VERSION = 1  # of the drawings
SEED = 2016
CANVAS, GLYPH = 64, 46  # pixels: the square in which glyphs are thinned, and their longer side in it
SHORTEST = 16  # pixels of skeleton
ALIKE = 0.86  # cosine of blurred pictures above which two glyphs count as one


@dataclass(frozen=True)
class Alphabet:
    """A set of characters: letters and symbols of some Unicode ranges, in one font.

    Args:
        name: of the alphabet.
        font: file name without its ending.
        ranges: first and last code point, both included.
        held_out: True for evaluation.
    """

    name: str
    font: str
    ranges: tuple[tuple[int, int], ...]
    held_out: bool = False


SANS, STIX = "DejaVuSans", "STIXGeneral"
ALPHABETS = (
    Alphabet("latin", SANS, ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xFF))),
    Alphabet("latin_extended", SANS, ((0x100, 0x24F), (0x1E00, 0x1EFF))),
    Alphabet("latin_african", SANS, ((0x2C60, 0x2C7F), (0xA720, 0xA7FF))),
    Alphabet("phonetic", SANS, ((0x250, 0x2AF), (0x1D00, 0x1D2B), (0x1D6B, 0x1DBF)), held_out=True),
    Alphabet("greek", SANS, ((0x370, 0x3E1), (0x3F0, 0x3FF)), held_out=True),
    Alphabet("coptic", SANS, ((0x3E2, 0x3EF), (0x2C80, 0x2CFF))),
    Alphabet("cyrillic", SANS, ((0x400, 0x45F), (0x48A, 0x52F), (0xA640, 0xA69F))),
    Alphabet("old_cyrillic", SANS, ((0x460, 0x481),)),
    Alphabet("armenian", SANS, ((0x530, 0x58F), (0xFB13, 0xFB17)), held_out=True),
    Alphabet("hebrew", SANS, ((0x5D0, 0x5F4), (0xFB1D, 0xFB4F)), held_out=True),
    Alphabet("arabic", SANS, ((0x620, 0x6FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF))),
    Alphabet("nko", SANS, ((0x7C0, 0x7FF),), held_out=True),
    Alphabet("lao", SANS, ((0xE80, 0xEFF),), held_out=True),
    Alphabet("georgian_mkhedruli", SANS, ((0x10D0, 0x10FF),), held_out=True),
    Alphabet("georgian_asomtavruli", SANS, ((0x10A0, 0x10C5),), held_out=True),
    Alphabet("georgian_nuskhuri", SANS, ((0x2D00, 0x2D25),), held_out=True),
    Alphabet("canadian_syllabics", SANS, ((0x1401, 0x166C),)),
    Alphabet("ogham", SANS, ((0x1681, 0x169C),)),
    Alphabet("tifinagh", SANS, ((0x2D30, 0x2D6F),), held_out=True),
    Alphabet("old_italic", SANS, ((0x10300, 0x10323),), held_out=True),
    Alphabet("arrows", SANS, ((0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2900, 0x297F), (0x2B00, 0x2BFF))),
    Alphabet("operators", SANS, ((0x2200, 0x22FF),)),
    Alphabet("more_operators", SANS, ((0x27C0, 0x27EF), (0x2980, 0x29FF), (0x2A00, 0x2AFF))),
    Alphabet("technical", SANS, ((0x2300, 0x23FF),)),
    Alphabet("letter_like", SANS, ((0x2100, 0x214F),)),
    Alphabet("symbols", SANS, ((0x2600, 0x265F), (0x2669, 0x26FF)), held_out=True),
    Alphabet("geometry", SANS, ((0x25A0, 0x25FF),)),
    Alphabet("dingbats", SANS, ((0x2701, 0x27BF),)),
    Alphabet("tetragrams", SANS, ((0x4DC0, 0x4DFF), (0x1D300, 0x1D356))),
    Alphabet("apl", "DejaVuSansMono", ((0x2336, 0x237A),)),
    Alphabet("serif", "DejaVuSerif", ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0x3B1, 0x3C9))),
    Alphabet("script", STIX, ((0x1D49C, 0x1D4CF), (0x210A, 0x2113), (0x211B, 0x211B), (0x212C, 0x2134))),
    Alphabet("fraktur", STIX, ((0x1D504, 0x1D537), (0x2128, 0x212D)), held_out=True),
    Alphabet("double_struck", STIX, ((0x1D538, 0x1D56B), (0x1D7D8, 0x1D7E1), (0x2102, 0x2124))),
    Alphabet("stix_operators", STIX, ((0x2200, 0x22FF), (0x2A00, 0x2AFF))),
    Alphabet("calligraphic", "cmsy10", ((0x41, 0x5A),), held_out=True),
    Alphabet("math_italic", "cmmi10", ((0x41, 0x5A), (0x61, 0x7A))),
)


def load(side: int, alphabets: Sequence[Alphabet] = ALPHABETS) -> Drawings:
    """The drawings, made once (some seconds) and later read from the cache.

    Args:
        side: height and width, pixels.
        alphabets: which ones.
    """
    which = "" if alphabets is ALPHABETS else "-" + "-".join(alphabet.name for alphabet in alphabets)
    return Drawings.of(cached(f"glyphs-v{VERSION}-{side}{which}", lambda: draw(side, alphabets).arrays()))


def draw(side: int, alphabets: Sequence[Alphabet] = ALPHABETS) -> Drawings:
    """Make the drawings, always the same; see :func:`load`."""
    log.info("Drawing the characters of %d alphabets from fonts; done once.", len(alphabets))
    names, shapes, held_out = [], [], []
    for alphabet in progress(alphabets, "Drawing characters", "alphabets"):
        for code, shape in render(alphabet):
            names.append(f"{alphabet.name}/{code:05x}")
            shapes.append(shape)
            held_out.append(alphabet.held_out)
    skeletons = thin(torch.from_numpy(np.stack(shapes)) > 127)
    drawn = (skeletons.flatten(1).sum(1) >= SHORTEST).nonzero()[:, 0].tolist()  # no mere dots
    names, held_out, skeletons = [names[k] for k in drawn], [held_out[k] for k in drawn], skeletons[drawn]
    # A stroke three pixels wide: else a dot, one pixel of skeleton, would be too faint for the pen.
    field = blur(max_pool2d(skeletons.float().unsqueeze(1), 3, stride=1, padding=1), 1.0)
    # Held-out characters are judged last: of two look-alikes in both parts, training keeps its own.
    order = sorted(range(len(names)), key=lambda index: (held_out[index], names[index]))
    kept = sorted((order[k] for k in unlike(field[order])), key=names.__getitem__)
    images = pen(field[kept], side)
    return Drawings(images, [names[k] for k in kept], np.array([held_out[k] for k in kept]))


def render(alphabet: Alphabet) -> list[tuple[int, NDArray[np.uint8]]]:
    """Code points and pictures, ``uint8[64, 64]``, of the characters that the font has."""
    import matplotlib
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageFont

    path = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{alphabet.font}.ttf")
    font = ImageFont.truetype(path, 2 * CANVAS, layout_engine=ImageFont.Layout.BASIC)
    present = FT2Font(path).get_charmap()
    found = []
    for code in (code for first, last in alphabet.ranges for code in range(first, last + 1)):
        if code not in present or unicodedata.category(chr(code))[0] not in "LNS":
            continue
        mask = font.getmask(chr(code), mode="L")
        ink = np.array(mask, np.uint8).reshape(mask.size[::-1])
        rows, columns = np.nonzero(ink.max(1, initial=0) > 99)[0], np.nonzero(ink.max(0, initial=0) > 99)[0]
        if not len(rows):
            continue
        glyph = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        scale = GLYPH / max(glyph.size)
        width, height = (max(2, round(length * scale)) for length in glyph.size)
        shape = Image.new("L", (CANVAS, CANVAS))
        shape.paste(glyph.resize((width, height)), ((CANVAS - width) // 2, (CANVAS - height) // 2))
        found.append((code, np.array(shape)))
    return found


def thin(shapes: Tensor) -> Tensor:
    """Skeletons, one pixel wide, of ``bool[n, height, width]`` shapes (Zhang and Suen 1984)."""
    ink = shapes.to(torch.uint8)
    active = torch.arange(len(ink))
    while len(active):
        before = ink[active]
        now = before
        for first in (True, False):
            now = now & ~_removable(now, first).to(torch.uint8)
        ink[active] = now
        active = active[(now != before).flatten(1).any(1)]
    return ink.bool()


def _removable(ink: Tensor, first: bool) -> Tensor:
    padded = pad(ink, (1, 1, 1, 1))
    height, width = ink.shape[1:]
    # Clockwise from the pixel above.
    offsets = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
    p = [padded[:, y : y + height, x : x + width] for y, x in offsets]
    neighbours = sum(p[1:], p[0])
    rises = sum(((1 - p[k]) & p[(k + 1) % 8] for k in range(1, 8)), (1 - p[0]) & p[1])
    up, right, down, left = p[0], p[2], p[4], p[6]
    edge = (right & down & (up | left)) if first else (up & left & (right | down))
    return (ink == 1) & (neighbours >= 2) & (neighbours <= 6) & (rises == 1) & (edge == 0)


def blur(images: Tensor, sigma: float) -> Tensor:
    """``float[..., size, size]`` under a Gaussian of ``sigma`` pixels."""
    places = torch.arange(images.shape[-1])
    kernel = torch.exp(-0.5 * ((places[:, None] - places[None]) / sigma) ** 2)
    kernel /= sigma * math.sqrt(2 * math.pi)
    return kernel @ images @ kernel


def unlike(field: Tensor) -> list[int]:
    """Indices of the first of every set of look-alikes, quarter turns of each other included."""
    small = interpolate(blur(field, 1.5), size=(20, 20), mode="bilinear", antialias=True)
    turns = [torch.rot90(small, k, (2, 3)).flatten(1) for k in range(4)]
    flat = normalize(turns[0], dim=1)
    alike = torch.zeros(len(field), len(field))
    for turned in turns:
        alike = torch.maximum(alike, flat @ normalize(turned, dim=1).T)
    same = (alike > ALIKE).numpy()
    kept: list[int] = []
    for index in range(len(field)):
        if not same[index, kept].any():
            kept.append(index)
    return kept


def pen(field: Tensor, side: int) -> NDArray[np.uint8]:
    """Twenty drawings of each skeleton by a hand that wavers.

    Args:
        field: blurred skeletons, ``float[n, 1, 64, 64]``.
        side: height and width of the drawings, pixels.

    Returns:
        ``uint8[n, 20, side, side]``, 255 is ink.
    """
    count = len(field)
    generator = torch.Generator().manual_seed(SEED)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator) - 1

    images = np.empty((count, DRAWINGS, side, side), np.uint8)
    for drawing in progress(range(DRAWINGS), "Drawing by hand", "of each character"):
        angle, shear, shift = 0.12 * uniform(count), 0.15 * uniform(count), 0.06 * uniform(count, 2)
        scale = 1.0 + 0.12 * uniform(count, 2)
        rows = [
            torch.stack([scale[:, 0] * angle.cos(), -angle.sin() + shear, shift[:, 0]], 1),
            torch.stack([angle.sin(), scale[:, 1] * angle.cos(), shift[:, 1]], 1),
        ]
        grid = affine_grid(torch.stack(rows, 1), [count, 1, side, side], align_corners=False)
        bends = 0.055 * torch.randn(count, 2, 5, 5, generator=generator)
        bends = interpolate(bends, size=(side, side), mode="bicubic", align_corners=True)
        warped = grid_sample(field, grid + bends.permute(0, 2, 3, 1), align_corners=False)
        level = 0.45 + 0.17 * uniform(count, 1, 1, 1)
        ink = ((warped - level) * 3 + 0.5).clamp(0, 1)
        images[:, drawing] = (ink[:, 0] * 255).round().to(torch.uint8).numpy()
    return images
