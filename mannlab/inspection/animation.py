"""A sample as a small animation: the stream with a cursor, and the memory as it is read and written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mannlab.inspection import colours
from mannlab.inspection.sample import Row, Sample, Slots, cut, gaps

MOST_FRAMES = 120
WIDTH, MARGIN, LABEL = 640, 12, 58
PAUSE, LAST = 220, 1800  # ms a frame
RAMPS, LEVELS = (colours.INK, colours.PLUS, colours.MINUS), 12
PLAIN = (
    *(colours.READ, colours.WRITE, colours.RIGHT, colours.WRONG, colours.CURSOR),
    *(colours.QUIET, colours.LINE, colours.EMPTY),
)
CLEAR = 255  # the number of no colour
HEADS = 8  # of which bars are drawn
FRAMED = 0.3  # weights from which on a row has a frame
PICTURE = 64  # pixels on a side of the picture that comes in
COLUMNS = 64  # numbers of a slot


def frames(sample: Sample) -> list[Image.Image]:
    """At most :data:`MOST_FRAMES` pictures, in order; longer samples skip steps."""
    every = -(-sample.steps // MOST_FRAMES)
    shown = [*range(0, sample.steps, every)]
    if shown[-1] != sample.steps - 1:
        shown[-1] = sample.steps - 1
    strip = Strip(sample)
    return [frame(sample, strip, step) for step in shown]


def save(sample: Sample, path: Path) -> None:
    """Write the animation."""
    colour_table = palette()
    drawn = [image.quantize(palette=colour_table, dither=Image.Dither.NONE) for image in frames(sample)]
    kept = [drawn[0]]
    # What does not change is left see-through: long runs of one number, which pack well.
    for before, after in pairwise(drawn):
        old, new = np.asarray(before), np.asarray(after)
        image = Image.fromarray(np.where(old == new, CLEAR, new).astype(np.uint8), mode="P")
        image.putpalette(colour_table.getpalette() or [])
        kept.append(image)
    pauses = [PAUSE] * (len(kept) - 1) + [LAST]
    options: dict[str, Any] = {"transparency": CLEAR, "disposal": 1, "optimize": False, "loop": 0}
    kept[0].save(path, format="GIF", save_all=True, append_images=kept[1:], duration=pauses, **options)


def palette() -> Image.Image:
    """All colours that frames are made of, from white to each; the last number is no colour."""
    ramps = [colours.shade(np.linspace(0, 1, LEVELS, dtype=np.float32), end) for end in RAMPS]
    table = np.concatenate([*ramps, np.array(PLAIN)]).astype(np.uint8)
    image = Image.new("P", (1, 1))
    image.putpalette([*table.flatten().tolist(), *([255] * 3 * (256 - len(table)))])
    return image


@cache
def font(size: int) -> Any:
    """The font that comes with matplotlib."""
    import matplotlib

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )


class Strip:
    """The stream over time, drawn once; answers appear as the cursor comes to them."""

    def __init__(self, sample: Sample) -> None:
        self.rows = [
            (row, _pixels(row)) for row in sample.rows if row.cells is not None or row.images is not None
        ]
        self.pictures = [row for row in sample.rows if row.images is not None]
        self.column = (WIDTH - LABEL - 2 * MARGIN) / sample.steps
        self.heights = [self._height(row, pixels) for row, pixels in self.rows]
        self.height = sum(height + 5 for height in self.heights)

    def _height(self, row: Row, pixels: colours.Pixels) -> int:
        if row.images is not None:
            return int(np.clip(self.column, 10, 60))
        return int(min(8, max(3, 64 // len(pixels))) * len(pixels))

    def draw(self, canvas: Image.Image, pen: Any, sample: Sample, step: int, top: int) -> None:
        left, right = LABEL + MARGIN, WIDTH - MARGIN
        y = top
        for (row, pixels), height in zip(self.rows, self.heights, strict=True):
            pen.text((left - 6, y + height / 2), row.title, colours.QUIET, font(11), anchor="rm")
            if row.images is not None:
                self._thumbnails(canvas, row, left, y, height)
            else:
                shown = pixels.copy()
                if row is sample.output:
                    shown[:, step + 1 :] = colours.EMPTY
                image = Image.fromarray(shown).resize((right - left, height), Image.Resampling.NEAREST)
                canvas.paste(image, (left, y))
            pen.rectangle((left - 1, y - 1, right, y + height), outline=colours.LINE)
            y += height + 5
        if self.rows:
            x = left + int(step * self.column)
            pen.rectangle(
                (x - 1, top - 2, x + int(max(3, self.column)), y - 4), outline=colours.CURSOR, width=2
            )

    def _thumbnails(self, canvas: Image.Image, row: Row, left: int, y: int, height: int) -> None:
        assert row.images is not None
        side = max(1, int(min(height, self.column)))
        for step, image in enumerate(row.images):
            small = Image.fromarray(255 - image).resize((side, side), Image.Resampling.BOX)
            canvas.paste(small.convert("RGB"), (left + int(step * self.column), y + (height - side) // 2))


def _pixels(row: Row) -> colours.Pixels:
    if row.cells is None:
        return np.zeros((1, len(row.texts), 3), np.uint8)
    return colours.cells(row.cells).transpose(1, 0, 2)


def frame(sample: Sample, strip: Strip, step: int) -> Image.Image:
    """One step."""
    memories = sample.memories[:1]
    said = words(sample, step)
    height = (
        34
        + max(17 * len(said), PICTURE + 4 if strip.pictures else 0)
        + strip.height
        + 12
        + sum(map(memory_height, memories))
    )
    canvas = Image.new("RGB", (WIDTH, height), colours.WHITE)
    pen = ImageDraw.Draw(canvas)
    facts = f"{sample.facts.get('task', '')}: {sample.facts.get('model', '')}"
    pen.text((MARGIN, 8), facts, colours.INK, font(13))
    where = f"step {sample.first + step} of {sample.first + sample.steps - 1}"
    pen.text((WIDTH - MARGIN, 8), where, colours.QUIET, font(13), anchor="ra")
    y = 32
    for title, text, colour in said:
        pen.text((LABEL + MARGIN - 6, y), title, colours.QUIET, font(11), anchor="ra")
        pen.text((LABEL + MARGIN, y - 1), cut(text, 78), colour, font(12))
        y += 17
    for number, row in enumerate(strip.pictures):
        _picture(canvas, pen, row, step, WIDTH - MARGIN - (number + 1) * (PICTURE + 6))
        y = max(y, 32 + PICTURE + 4)
    strip.draw(canvas, pen, sample, step, y + 2)
    y += strip.height + 8
    for memory in memories:
        draw_memory(canvas, pen, memory, step, y)
        y += memory_height(memory)
    return canvas


def _picture(canvas: Image.Image, pen: Any, row: Row, step: int, left: int) -> None:
    """What comes in now, large."""
    assert row.images is not None
    shown = Image.fromarray(255 - row.images[step]).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
    canvas.paste(shown.convert("RGB"), (left, 32))
    pen.rectangle((left - 1, 31, left + PICTURE, 32 + PICTURE), outline=colours.LINE)


def words(sample: Sample, step: int) -> list[tuple[str, str, colours.Colour]]:
    """The rows that are words, and the verdict: title, text and colour."""
    found = []
    for row in sample.rows:
        if row.cells is None and row.images is None:
            tone = colours.INK
            if row is sample.output and sample.scored[step]:
                tone = colours.RIGHT if sample.right[step] else colours.WRONG
            found.append((row.title, row.texts[step], tone))
    return found


def _line(memory: Slots) -> int:
    return int(np.clip(300 // len(memory.shown), 7, 18))


def memory_height(memory: Slots) -> int:
    """Pixels."""
    return 20 + _line(memory) * len(memory.shown) + MARGIN


def draw_memory(canvas: Image.Image, pen: Any, memory: Slots, step: int, top: int) -> None:
    """Slots from top to bottom: number, a bar for each head, and what is held."""
    line, count = _line(memory), len(memory.shown)
    heads = memory.heads[:HEADS]
    named = any(name != str(number) for name, number in zip(memory.names, memory.shown, strict=True))
    x = MARGIN + (170 if named else LABEL - 20)
    bar = 40 if len(heads) <= 3 else 24
    _names(pen, memory, x - 5, top + 18, line, 26 if named else 8)
    for head in heads:
        colour = colours.WRITE if head.writes else colours.READ
        kind, _, number = head.title.partition(" ")
        name = head.title if bar >= 40 else f"{kind[0]}{number}"
        pen.text((x + bar / 2, top + 14), cut(name, 8), colour, font(10), anchor="ms")
        for i, weight in enumerate(np.clip(head.weights[step] / head.scale, 0, 1)):
            y = top + 18 + i * line
            pen.rectangle((x, y, x + bar, y + line - 2), fill=colours.EMPTY)
            if weight * bar >= 1:
                pen.rectangle((x, y, x + round(float(weight) * bar), y + line - 2), fill=colour)
        x += bar + 4
    if memory.rows is not None:
        rows = memory.rows[step, :, :COLUMNS] / colours.largest(memory.rows)
        box = (WIDTH - MARGIN - x - 6, line * count)
        pixels = Image.fromarray(colours.shade(rows, colours.PLUS)).resize(box, Image.Resampling.NEAREST)
        canvas.paste(pixels, (x + 6, top + 18))
        pen.rectangle((x + 5, top + 17, WIDTH - MARGIN, top + 18 + line * count), outline=colours.LINE)
        _frames(pen, memory, step, (x + 6, top + 18, WIDTH - MARGIN - 1), line)
    for place in gaps(memory.shown) if len(gaps(memory.shown)) < 8 else []:
        y = top + 17 + place * line
        pen.line((MARGIN, y, WIDTH - MARGIN, y), fill=colours.QUIET)


def _names(pen: Any, memory: Slots, right: int, top: int, line: int, room: int) -> None:
    every = 1 if line >= 9 else 2
    for i, name in enumerate(memory.names):
        if i % every == 0:
            pen.text((right, top + i * line + line / 2), cut(name, room), colours.QUIET, font(9), anchor="rm")


def _frames(pen: Any, memory: Slots, step: int, box: Sequence[int], line: int) -> None:
    """Around rows that a head reads or writes now."""
    left, top, right = box
    for writes, inset, colour in ((True, 0, colours.WRITE), (False, 1, colours.READ)):
        kind = [head.weights[step] for head in memory.heads if head.writes is writes]
        for i in np.flatnonzero(np.max(kind, axis=0) > FRAMED) if kind else []:
            y = top + int(i) * line
            ends = (left + inset, y + inset, right - inset, y + line - 1 - inset)
            pen.rectangle(ends, outline=colour, width=2 - inset)
