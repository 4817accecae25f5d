"""Charts as SVG text, in a coordinate system about as wide as a phone, so that letters keep their size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

from mannlab.report.statistics import Band, Estimate

WIDTH, HEIGHT = 380.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 10.0, 38.0
COLOURS = 8  # of page.css; further groups have the same ones, dashed
NOTHING = 1e-100  # numbers smaller than this are zero
DECADES = 1e12  # the most that a logarithmic axis spans
SPREAD = 16  # sizes that span more than this factor are drawn on a logarithmic axis
SHAPES = (
    "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z",
    "M-3.5-3.5H3.5V3.5H-3.5Z",
    "M0-4.5L4.4 3.5H-4.4Z",
    "M0-5L5 0L0 5L-5 0Z",
)


@dataclass(frozen=True)
class Line:
    """A group in a chart; ``index`` gives its colour and its mark, the same in all charts."""

    label: str
    index: int
    band: Band


@dataclass(frozen=True)
class Axis:
    """From values to places.

    Attributes:
        low, high: what the axis spans.
        start, end: where these are drawn.
        log: logarithmic; values below ``low`` are drawn at it.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            value = max(value, self.low)
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the axis."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten, with twos and fives between them where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 5)):
        found = [factor * 10.0**power for power in range(first, last + 1, step) for factor in factors]
        found = [tick for tick in found if low * 0.999 <= tick <= high * 1.001]
        if len(found) <= most:
            break
    return found


def span(values: Sequence[float], log: bool = False) -> tuple[float, float]:
    """Ends of an axis for values: from zero where that is not far, and never empty."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if max(abs(low), abs(high)) < NOTHING:
        return (1.0, 10.0) if log else (0.0 if low >= 0 else -1.0, 1.0)
    # Values so close that their difference is rounding are one value.
    same = high - low <= 1e-9 * max(abs(low), abs(high))
    if log:
        low = max(low, high / DECADES)
        return (low / 2, high * 2) if same else (low / 1.15, high * 1.15)
    if 0 <= low <= 0.6 * high and not same:
        return 0.0, high * 1.04
    room = (0.1 * abs(high) if same else 0.06 * (high - low)) or 1.0
    return 0.0 if 0 <= low <= room else low - room, high + room


def short(value: float) -> str:
    """A number for an axis: ``20k``, ``0.05``, ``1e-6``."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit * 0.9999 and size < 1e12:
            return f"{value / limit:.4g}{letter}"
    if size and size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.4g}"


def line_chart(
    lines: Sequence[Line],
    name: str,
    x_label: str,
    log_y: bool = False,
    sizes: Sequence[int] | None = None,
    mark: tuple[float, str] | None = None,
    bands: bool = True,
) -> str:
    """Means as lines, from the lowest to the highest run as bands; dashed where some runs have ended.

    Args:
        lines: at least one.
        name: for those who cannot see it.
        x_label: what the horizontal axis says.
        log_y: a logarithmic vertical axis.
        sizes: where x is marked; points are then drawn too. None: round numbers.
        mark: a vertical line, and what stands beside it.
        bands: False: means alone.
    """
    xs = [float(value) for line in lines for value in line.band.x]
    shown = [(line.band.low, line.band.high) if bands else (line.band.mean,) for line in lines]
    ys = [float(value) for parts in shown for part in parts for value in part]
    log_x = sizes is not None and min(sizes) > 0 and max(sizes) > SPREAD * min(sizes)
    if sizes is None:
        ends = (min(0.0, *xs), max(xs)) if max(xs) > 0 else span(xs)
    else:
        ends = span(xs, True) if log_x else span([0.0, *xs])
    x = Axis(*ends, LEFT, WIDTH - RIGHT, log_x)
    y = Axis(*span(ys, log_y), HEIGHT - BOTTOM, TOP, log_y)
    parts = [_frame(x, y, x_label, sizes)]
    if mark is not None and x.low <= mark[0] <= x.high:
        place = x(mark[0])
        near = place > WIDTH - 120
        anchor = f'x="{place + (-4 if near else 4):.1f}" text-anchor="{"end" if near else "start"}"'
        parts.append(f'<path class="mark" d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text {anchor} y="{TOP + 10}">{escape(mark[1])}</text>')
    for line in lines:
        parts.append(_line(line, x, y, sizes is not None, bands))
    plot = {
        "x": [x.low, x.high, x.start, x.end, log_x],
        "y": [y.low, y.high, y.start, y.end, log_y],
        "unit": x_label,
        "lines": [_hover(line) for line in lines],
    }
    data = escape(json.dumps(plot, separators=(",", ":")), quote=True)
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(name)}" '
        f'data-plot="{data}">{"".join(parts)}</svg>'
    )


def _frame(x: Axis, y: Axis, label: str, sizes: Sequence[int] | None) -> str:
    parts = []
    for tick in y.ticks():
        place = f"{y(tick):.1f}"
        parts.append(f'<path class="grid" d="M{x.start} {place}H{x.end}"/>')
        parts.append(f'<text x="{x.start - 5}" y="{place}" dy=".35em" text-anchor="end">{short(tick)}</text>')
    last = -math.inf
    for at in sorted(sizes) if sizes is not None else x.ticks():
        spot = x(at)
        # Sizes lie where they lie: their numbers must not touch.
        if spot - last >= 24:
            parts.append(f'<text x="{spot:.1f}" y="{y.start + 14}" text-anchor="middle">{short(at)}</text>')
            last = spot
        parts.append(f'<path class="tick" d="M{spot:.1f} {y.start}v4"/>')
    parts.append(f'<path class="axis" d="M{x.start} {y.start}H{x.end}"/>')
    middle = (x.start + x.end) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>')
    return "".join(parts)


def _line(line: Line, x: Axis, y: Axis, points: bool, bands: bool) -> str:
    band = line.band
    spots = [(x(float(at)), y(float(value))) for at, value in zip(band.x, band.mean, strict=True)]
    most = int(band.count.max())
    parts = []
    if bands and most > 1 and len(spots) > 1:
        top = [f"{x(float(at)):.1f} {y(float(v)):.1f}" for at, v in zip(band.x, band.high, strict=True)]
        low = [f"{x(float(at)):.1f} {y(float(v)):.1f}" for at, v in zip(band.x, band.low, strict=True)]
        parts.append(f'<path class="band" d="M{"L".join([*top, *reversed(low)])}Z"/>')
    for few, run in _runs([int(n) < most for n in band.count]):
        # A stretch begins where the one before it ended.
        stretch = spots[max(0, run.start - 1) : run.stop]
        if len(stretch) > 1:
            ended = ' stroke-dasharray="3 3"' if few else _dash(line.index)
            parts.append(
                f'<path class="line"{ended} d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in stretch)}"/>'
            )
    if points or len(spots) == 1:
        for (a, b), at, value in zip(spots, band.x, band.mean, strict=True):
            tip = escape(f"{line.label}: {value:.4g} at {short(float(at))}")
            parts.append(
                f'<path class="dot" transform="translate({a:.1f} {b:.1f})" d="{shape(line.index)}">'
                f"<title>{tip}</title></path>"
            )
    title = escape(f"{line.label}: {band.mean[-1]:.4g} at the end")
    return f'<g class="c{line.index % COLOURS}"><title>{title}</title>{"".join(parts)}</g>'


def _runs(flags: Sequence[bool]) -> list[tuple[bool, slice]]:
    """Stretches of equal flags."""
    found: list[tuple[bool, slice]] = []
    for index, flag in enumerate(flags):
        if found and found[-1][0] == flag:
            found[-1] = (flag, slice(found[-1][1].start, index + 1))
        else:
            found.append((flag, slice(index, index + 1)))
    return found


def _dash(index: int) -> str:
    return f' stroke-dasharray="{9 + 4 * (index // COLOURS)} 3"' if index >= COLOURS else ""


def shape(index: int) -> str:
    """The mark of a group, as a path around the origin."""
    return SHAPES[index % len(SHAPES)]


def _hover(line: Line) -> dict[str, object]:
    band = line.band
    rows = zip(band.x, band.mean, band.low, band.high, band.count, strict=True)
    points = [[*(float(f"{value:.4g}") for value in (m, lo, hi)), int(n)] for _, m, lo, hi, n in rows]
    places = [float(f"{value:.6g}") for value in band.x]
    return {"n": line.label, "c": line.index % COLOURS, "x": places, "v": points}


LETTERS, TEXT_ROW, BAR_ROW = 50, 14.0, 26.0  # letters that fit a line; heights


def bar_chart(bars: Sequence[tuple[str, int, Estimate]], name: str, text: Callable[[Estimate], str]) -> str:
    """A bar a group with the confidence interval of its mean, and a dot a run.

    Intervals that are much wider than the values are cut off at the edge, with an arrow.

    Args:
        bars: label, index (see :class:`Line`) and estimate of each.
        name: for those who cannot see it.
        text: what to write of an estimate.
    """
    values = [value for _, _, found in bars for value in found.values]
    whiskers = [end for _, _, found in bars for end in (found.low, found.high) if end is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    room = (high - low) or 1.0
    low = max(low - 0.5 * room, min([low, *whiskers])) if low < 0 else low
    high = min(high + 0.5 * room, max([high, *whiskers])) if high > 0 else high
    x = Axis(low, high if high - low > NOTHING else low + 1.0, 6.0, WIDTH - RIGHT)
    parts, top = [], 0.0
    for label, index, found in bars:
        lines = wrap(label, max(12, LETTERS - len(text(found)))) or [""]
        parts.append(_bar(lines, index, found, f"{label}: {text(found)}", text(found), x, top))
        top += TEXT_ROW * len(lines) + BAR_ROW
    grid = []
    for tick in x.ticks():
        grid.append(f'<path class="grid" d="M{x(tick):.1f} 0V{top + 4}"/>')
        anchor = "start" if x(tick) < 12 else "middle"
        grid.append(f'<text x="{x(tick):.1f}" y="{top + 17}" text-anchor="{anchor}">{short(tick)}</text>')
    return (
        f'<svg class="bars" viewBox="0 0 {WIDTH:.0f} {top + 22:.0f}" role="img" '
        f'aria-label="{escape(name)}">{"".join([*grid, *parts])}</svg>'
    )


def _bar(lines: Sequence[str], index: int, found: Estimate, tip: str, text: str, x: Axis, top: float) -> str:
    middle = top + TEXT_ROW * len(lines) + 12
    zero, end = sorted((x(0.0), x(found.mean)))
    runs = len(found.values)
    tip = f"{tip}, {runs} run{'s' if runs > 1 else ''}"
    parts = [
        f"<title>{escape(tip)}</title>",
        f'<rect class="hit" x="0" y="{top}" width="{WIDTH:.0f}" height="{middle + 14 - top}"/>',
        f'<text class="value" x="{WIDTH - RIGHT}" y="{top + 13}" text-anchor="end">{escape(text)}</text>',
        f'<rect class="bar" x="{zero:.1f}" y="{middle - 7}" width="{max(1.0, end - zero):.1f}" height="14"/>',
    ]
    for row, line in enumerate(lines):
        parts.append(
            f'<text class="name" x="{x.start}" y="{top + 13 + TEXT_ROW * row}">{escape(line)}</text>'
        )
    if found.low is not None and found.high is not None:
        left, right = x(max(found.low, x.low)), x(min(found.high, x.high))
        parts.append(f'<path class="whisker" d="M{left:.1f} {middle}H{right:.1f}"/>')
        for at, inside, turn in ((left, found.low >= x.low, 4), (right, found.high <= x.high, -4)):
            cap = (
                f"M{at:.1f} {middle - 5}v10"
                if inside
                else f"M{at + turn:.1f} {middle - 4}l{-turn} 4l{turn} 4"
            )
            parts.append(f'<path class="whisker" d="{cap}"/>')
    if runs > 1:
        for value in found.values:
            parts.append(f'<circle class="run" cx="{x(value):.1f}" cy="{middle}" r="2.6"/>')
    return f'<g class="c{index % COLOURS}" data-tip="{escape(tip)}">{"".join(parts)}</g>'
