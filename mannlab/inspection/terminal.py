"""A sample in the terminal: a line a step, the middle of long ones left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mannlab.inspection.sample import Floats, Head, Row, Sample, Slots, cut

LINES = 40  # steps shown at most
END = 16  # of them, at each end, when there are more
FAINT = 0.01  # weights below are not named
SCORES = 4  # metrics that are named
HEADS = 4  # heads of a kind that are named
STRIP = 32  # characters of a strip of slots
LEAST = 8  # characters of a column that was made narrower
SHADES = " ·▁▂▃▄▅▆▇█"
READ, WRITE = "bold blue", "bold yellow"


def show(sample: Sample, console: Console) -> None:
    """Print the facts, the steps and the score."""
    console.print(heading(sample))
    console.print(steps(sample, console.width))
    console.print(ending(sample))


def heading(sample: Sample) -> Text:
    """What is looked at."""
    parts = [f"{title} {value}" for title, value in sample.facts.items() if title != "checkpoint"]
    return Text("  ".join(parts), style="bold")


def ending(sample: Sample) -> RenderableType:
    """The score, and what could not be shown."""
    lines = [Text(sample.verdict, style="bold")]
    few = list(sample.metrics.items())[:SCORES]
    scores = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in few)
    if sample.steps > LINES:
        lines.append(Text(omitted(sample)))
    lines.append(Text(scores, style="dim"))
    for memory in sample.memories:
        said = [memory.note] if memory.note else []
        if len(memory.shown) < memory.count:
            said.insert(0, f"{len(memory.shown)} of {memory.count:,} slots are shown")
        if said:
            lines.append(Text(f"{memory.title or 'memory'}: {'; '.join(said)}", style="dim"))
    if sample.note:
        lines.append(Text(sample.note, style="dim"))
    return Group(*lines)


def omitted(sample: Sample) -> str:
    """What happened in the steps that are left out."""
    middle = slice(END, sample.steps - END)
    right, scored = sample.right[middle], sample.scored[middle]
    said = f"… {len(scored)} steps are left out: {right.sum()} of {scored.sum()} right there"
    wrong = np.flatnonzero(scored & ~right)
    return said + (f", the first wrong at step {sample.first + END + wrong[0]}" if len(wrong) else "")


def picked(sample: Sample) -> list[int | None]:
    """Which steps to print; None stands for those that are left out."""
    if sample.steps <= LINES:
        return list(range(sample.steps))
    return [*range(END), None, *range(sample.steps - END, sample.steps)]


def steps(sample: Sample, width: int) -> Table:
    """The table of steps."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), expand=False)
    table.add_column("step", justify="right", style="dim", no_wrap=True)
    rows = [row for row in sample.rows if row.images is not None or any(text for text in row.texts)]
    groups = [(memory, group) for memory in sample.memories for group in grouped(memory)]
    shown = [step for step in picked(sample) if step is not None]
    tops = {id(group): {step: _tops(group, step) for step in shown} for _, group in groups}
    taken = sum(max(text.cell_len for text in texts.values()) + 1 for texts in tops.values())
    room = widths(rows, width - 10 - taken)
    for row, wide in zip(rows, room, strict=True):
        table.add_column(row.title, no_wrap=True, max_width=wide)
    table.add_column("", no_wrap=True)
    for memory, group in groups:
        name = group[0].title.split()[0] + (f" ×{len(group)}" if len(group) > 1 else "")
        table.add_column(f"{name} {memory.title}".strip(), no_wrap=True)
    left = (width - sum(room) - len(room) - 10 - taken) // max(1, len(groups)) - 1
    strip = min(STRIP, left) if left >= LEAST else 0
    for memory, _ in groups if strip else []:
        table.add_column(f"slots {memory.shown[0]} to {memory.shown[-1]}"[:strip], no_wrap=True)
    for step in picked(sample):
        if step is None:
            table.add_row("…")
            continue
        cells: list[RenderableType] = [str(sample.first + step)]
        cells += [_cell(row, step, wide) for row, wide in zip(rows, room, strict=True)]
        cells.append(_mark(sample, step))
        cells += [tops[id(group)][step] for _, group in groups]
        cells += [_strip(group, step, strip) for _, group in groups if strip]
        table.add_row(*cells)
    return table


def grouped(memory: Slots) -> list[list[Head]]:
    """Reading heads, then writing ones."""
    kinds = ([head for head in memory.heads if head.writes is writes] for writes in (False, True))
    return [group for group in kinds if group]


def widths(rows: Sequence[Row], room: int) -> list[int]:
    """Characters for each row of the stream: what it wants, as far as there is room."""
    wanted = [
        max(cell_len(row.title), 6 if row.images is not None else max(map(cell_len, row.texts)))
        for row in rows
    ]
    while sum(wanted) + len(wanted) > room and max(wanted) > LEAST:
        wanted[int(np.argmax(wanted))] -= 1
    return wanted


def _cell(row: Row, step: int, room: int) -> RenderableType:
    if row.images is not None:
        return Text(braille(row.images[step]))
    text = row.texts[step]
    return Text(cut(text, room))


def _mark(sample: Sample, step: int) -> Text:
    if not sample.scored[step]:
        return Text("")
    return Text("✓", style="green") if sample.right[step] else Text("✗", style="bold red")


def _tops(heads: Sequence[Head], step: int) -> Text:
    """The heaviest slots: two of one head, one of each of several."""
    shown = 2 if len(heads) == 1 else 1
    colour = WRITE if heads[0].writes else READ
    text = Text()
    for head in heads[:HEADS]:
        pairs = zip(head.top_slots[step, :shown], head.top_weights[step, :shown], strict=True)
        for slot, weight in pairs:
            if weight >= FAINT:
                text.append("  " if text else "").append(str(slot), style=colour)
                text.append(f" {_share(weight)}", style="dim")
    if not text:
        text.append("spread", style="dim")
    return text.append(f" +{len(heads) - HEADS}" if len(heads) > HEADS else "")


def _share(weight: float) -> str:
    return "1" if weight > 0.995 else f"{weight:.2f}".removeprefix("0") if weight < 10 else f"{weight:.0f}"


def _strip(heads: Sequence[Head], step: int, room: int) -> Text:
    """Weights over the shown slots, the darkest of the heads."""
    scale = max(head.scale for head in heads)
    weights = squeezed(np.max([head.weights[step] for head in heads], axis=0) / scale, room)
    levels = np.clip(np.rint(weights * (len(SHADES) - 1)), 0, len(SHADES) - 1).astype(int)
    return Text("".join(SHADES[level] for level in levels), style=WRITE if heads[0].writes else READ)


def squeezed(weights: Floats, room: int) -> Floats:
    """At most ``room`` numbers, each the largest of neighbours."""
    if len(weights) <= room:
        return weights
    return np.asarray([part.max() for part in np.array_split(weights, room)], np.float32)


def braille(image: NDArray[np.uint8], size: int = 12) -> str:
    """A picture of ``size`` by ``size`` dots, in lines of Braille characters (2 by 4 dots each)."""
    rows = np.array_split(np.arange(image.shape[0]), size)
    columns = np.array_split(np.arange(image.shape[1]), size)
    ink = np.array([[image[np.ix_(r, c)].max(initial=0) > 110 for c in columns] for r in rows])
    bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    lines = []
    for top in range(0, size, 4):
        cells = (int((ink[top : top + 4, left : left + 2] * bits).sum()) for left in range(0, size, 2))
        lines.append("".join(chr(0x2800 + cell) for cell in cells))
    return "\n".join(lines)
