"""From groups of runs to charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mannlab.report.groups import Group, Section
from mannlab.report.runs import Run
from mannlab.report.statistics import Band, Curve, band
from mannlab.report.svg import Line, bar_chart, line_chart, span
from mannlab.report.tables import ARROWS, duration, spread, words

MOST_GROUPS = 12  # in a chart; more cannot be told apart
POINTS, STRETCHES = 120, 60  # of a curve; of one of single batches
UNITS = ((2 * 3600, 3600, "hours"), (2 * 60, 60, "minutes"), (0, 1, "seconds"))
STRETCH = 20.0  # a largest value more than this many times the smallest: a logarithmic axis is offered


@dataclass(frozen=True)
class Chart:
    """A chart for the page.

    Attributes:
        title: the metric, and what it was measured on.
        note: what else there is to say of it.
        views: the drawing by the class of the page that shows it; ``""``: always.
    """

    title: str
    note: str
    views: dict[str, str]


def shown_groups(section: Section) -> list[Group]:
    """As many groups as fit into a chart, the best ones."""
    if len(section.groups) <= MOST_GROUPS or not section.metrics:
        return section.groups[:MOST_GROUPS]
    metric = section.metrics[-1]
    sign = -1.0 if section.direction(metric) == "max" else 1.0

    def rank(group: Group) -> float:
        found = group.estimate(section.full(metric))
        return sign * found.mean if found else float("inf")

    best = sorted(section.groups, key=rank)[:MOST_GROUPS]
    return [group for group in section.groups if group in best]


def title(section: Section, metric: str) -> str:
    """A metric with its direction."""
    arrow = ARROWS.get(section.direction(metric) or "", "")
    return f"{words(metric)}{arrow}"


# ---------------------------------------------------------------------- learning curves


def learning_curves(section: Section, colours: dict[str, int]) -> list[Chart]:
    """Validation by the main metrics, and the loss of training, against sequences seen and against time."""
    tags = [_tag(section, metric) for metric in section.metrics] + ["train/loss_nats"]
    found = [_learning(section, tag, colours) for tag in dict.fromkeys(tags)]
    return [chart for chart in found if chart is not None]


def _tag(section: Section, metric: str) -> str:
    split, _, name = metric.rpartition("/")
    wanted = f"{split.replace('test', 'val', 1)}/{name}"
    logged = {tag for run in section.runs for tag in run.scalars.curves}
    if split and wanted in logged:
        return wanted
    return f"val/{name}" if f"val/{name}" in logged else f"train/{name}"


def _learning(section: Section, tag: str, colours: dict[str, int]) -> Chart | None:
    split, _, name = tag.partition("/")
    where = {"val": "validation", "train": "training"}.get(split, split.replace("_", " "))
    views = {}
    for axis in ("sequences", "seconds"):
        curves = {
            group.label: found
            for group in shown_groups(section)
            if (found := [_curve(run, tag, axis) for run in group.tries if run.status != "failed"])
        }
        label, factor = "sequences seen", 1.0
        if axis == "seconds":
            longest = max((x[-1] for each in curves.values() for x, _ in each if len(x)), default=0.0)
            factor, label = next(
                (size, f"{unit} since the start") for least, size, unit in UNITS if longest >= least
            )
        lines = _lines(curves, colours, factor)
        if not lines:
            continue
        name_, bands = f"{title(section, name)}, {where}", split != "train"
        views[f"on-{axis} linear"] = line_chart(lines, name_, label, bands=bands)
        low, high = span([float(v) for line in lines for v in line.band.mean], True)
        log = high / low > STRETCH and all(float(line.band.low.min()) >= 0 for line in lines)
        views[f"on-{axis} log"] = (
            line_chart(lines, name_, label, log_y=True, bands=bands) if log else views[f"on-{axis} linear"]
        )
    if not views:
        return None
    if "on-seconds linear" not in views:
        views["on-seconds"] = '<p class="quiet">The log of these runs does not say when.</p>'
    return Chart(title(section, name), where if split != "train" else f"{where}, means alone", views)


def _curve(run: Run, tag: str, axis: str) -> Curve:
    x, y = run.scalars.curve(tag, axis, run.sequences_a_step)
    if len(x) <= STRETCHES or not tag.startswith("train/"):
        return x, y
    # Losses of single batches are noisy: a point for each stretch, not every tenth batch.
    cut = [np.array_split(np.asarray(part), STRETCHES) for part in (x, y)]
    return [float(part.mean()) for part in cut[0]], [float(part.mean()) for part in cut[1]]


def _lines(curves: dict[str, list[Curve]], colours: dict[str, int], factor: float) -> list[Line]:
    lines = []
    for label, each in curves.items():
        found = band([([value / factor for value in x], y) for x, y in each], POINTS)
        if found is not None:
            lines.append(Line(label, colours[label], found))
    return lines


# ---------------------------------------------------------------------- results


def comparison(section: Section, colours: dict[str, int]) -> list[Chart]:
    """A bar a group for each main metric."""
    found = []
    for metric in section.metrics:
        full = section.full(metric)
        bars = [
            (group.label, colours[group.label], value)
            for group in shown_groups(section)
            if (value := group.estimate(full)) is not None
        ]
        if bars:
            where = {"test": "test", "val": "validation"}.get(section.split, "") if "/" not in metric else ""
            drawn = bar_chart(bars, f"{title(section, metric)} by group", spread)
            found.append(Chart(title(section, metric), where, {"": drawn}))
    return found


def generalisation(section: Section, colours: dict[str, int]) -> list[Chart]:
    """The main metrics against the size of the test set, for each kind of size."""
    found = []
    for metric in dict.fromkeys(name.rpartition("/")[2] for name in section.metrics):
        for kind, sizes in section.sizes(metric).items():
            lines = _against_size(section, sizes, colours)
            if lines:
                end = section.trained(kind)
                mark = None if end is None else (float(end), f"trained up to {end:,}")
                drawn = line_chart(
                    lines, f"{words(metric)} by {kind}", kind, sizes=[size for size, _ in sizes], mark=mark
                )
                found.append(Chart(title(section, metric), f"test sets of one {kind} each", {"": drawn}))
    return found


def _against_size(section: Section, sizes: Sequence[tuple[int, str]], colours: dict[str, int]) -> list[Line]:
    lines = []
    for group in shown_groups(section):
        rows = [(size, value) for size, name in sizes if (value := group.estimate(name)) is not None]
        if rows:
            lines.append(
                Line(
                    group.label,
                    colours[group.label],
                    Band(
                        np.array([float(size) for size, _ in rows]),
                        np.array([value.mean for _, value in rows]),
                        np.array([min(value.values) for _, value in rows]),
                        np.array([max(value.values) for _, value in rows]),
                        np.array([len(value.values) for _, value in rows]),
                    ),
                )
            )
    return lines


def run_time(run: Run) -> str:
    """How long a run took, if it is known."""
    seconds = run.summary.get("wall_seconds")
    return duration(float(seconds)) if isinstance(seconds, (int, float)) else ""
