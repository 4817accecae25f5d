"""The report as one HTML page that needs nothing else: no server, no network, no scripts to be read."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from html import escape
from importlib import resources

from mannlab import __version__
from mannlab.report import charts, tables
from mannlab.report.groups import Section, heading
from mannlab.report.pictures import Album, albums
from mannlab.report.runs import Run
from mannlab.report.statistics import CONFIDENCE
from mannlab.report.svg import COLOURS, shape

THEMES = (("system", "as the system"), ("light", "light"), ("dark", "dark"))
BAND = "line: mean over runs; band: lowest to highest run; dashed: some runs have ended"


@dataclass(frozen=True)
class Page:
    """What is on a page.

    Attributes:
        sections: from ``groups.sections``.
        command: the arguments that made it, to be shown.
    """

    sections: Sequence[Section]
    command: Sequence[str] = ()

    def html(self) -> str:
        """The whole page."""
        colours = colour_indices(self.sections)
        pictures = albums(self.sections)
        body = [self._header()]
        for index, section in enumerate(self.sections):
            body.append(_section(section, pictures[index], colours[index], index))
        body.append(self._footer())
        script = _file("page.js")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # Nothing but what is in this file may load or run, whatever names and errors may hold.
        policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f'<title>{escape(self._title())}</title>\n<link rel="icon" href="data:,">\n'
            f"<style>\n{_file('page.css')}</style>\n</head>\n<body>\n"
            + "\n".join(body)
            + f"\n<script>{script}</script>\n</body>\n</html>\n"
        )

    def _title(self) -> str:
        tasks = [section.task for section in self.sections if section.task]
        return f"mannlab report: {', '.join(tasks[:4])}" if tasks else "mannlab report"

    def _header(self) -> str:
        runs = [run for section in self.sections for run in section.runs]
        done = sum(run.finished for run in runs)
        count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {done} of them finished and counted"
        links = [
            f'<a href="#task-{index}">{escape(section.task or "not read")}</a>'
            for index, section in enumerate(self.sections)
        ]
        return (
            f"<header><div><h1>mannlab report</h1><div class=quiet>{count} · "
            f"<time>{datetime.now():%Y-%m-%d %H:%M}</time></div></div>"
            f"{_switch('theme', 'Colours', THEMES)}</header>"
            + (f"<nav>{''.join(links)}</nav>" if len(links) > 1 else "")
        )

    def _footer(self) -> str:
        made = shlex.join(["python", "-m", "mannlab", "report", *self.command])
        return (
            f"<footer><p class=quiet>Made by mannlab {escape(__version__)} with:</p>{_command(made)}</footer>"
        )


def colour_indices(sections: Sequence[Section]) -> list[dict[str, int]]:
    """Of each section, label to colour and mark of a group: the same in all charts, and tasks if free."""
    known: dict[str, int] = {}
    found = []
    for section in sections:
        labels = dict.fromkeys(group.label for group in charts.shown_groups(section))
        here: dict[str, int] = {}
        for label in sorted(labels, key=lambda label: label not in known):
            taken = set(here.values())
            wanted = known.get(label)
            free = wanted is not None and wanted not in taken and wanted < max(COLOURS, len(labels))
            spare = next(index for index in range(len(labels) + COLOURS) if index not in taken)
            here[label] = wanted if free and wanted is not None else spare
        known = {**here, **known}
        found.append(here)
    return found


@cache
def _file(name: str) -> str:
    return resources.files("mannlab.report").joinpath(name).read_text(encoding="utf-8")


def _switch(name: str, legend: str, options: Sequence[tuple[str, str]], prefix: str = "") -> str:
    """Radio buttons side by side; the style sheet follows them, so they work without scripts."""
    parts = []
    for index, (value, words) in enumerate(options):
        mark = f'class="{prefix}{value}"' if prefix else f'id="{name}-{value}"'
        checked = " checked" if index == 0 else ""
        parts.append(
            f'<label><input type="radio" name="{name}" value="{value}" {mark}{checked}>'
            f"{escape(words)}</label>"
        )
    return f'<fieldset class="switch"><legend>{escape(legend)}</legend>{"".join(parts)}</fieldset>'


def _section(section: Section, found: Sequence[Album], colours: dict[str, int], index: int) -> str:
    parts = [f'<section id="task-{index}"><h2>{escape(section.task or "Runs that could not be read")}</h2>']
    if section.task:
        parts.append(f"<p class=quiet>{escape(_by(section))}</p>")
        parts.append(_table(section, colours))
        if any(run.finished for run in section.runs):
            green = "green: the best mean, and those whose interval touches its own"
            parts.append(f"<p class=quiet>{escape(tables.NOTE)}; {green}</p>")
        bars = charts.comparison(section, colours)
        if bars:
            several = any(len(group.counted) > 1 for group in section.groups)
            note = f"whiskers: {CONFIDENCE:.0%} confidence interval of the mean; dots: single runs"
            note = note if several else "one run a group: no confidence intervals"
            parts.append(_gallery("Comparison", bars, note))
        parts.append(_curves(section, colours, index))
        sizes = charts.generalisation(section, colours)
        if sizes:
            parts.append("<h3>Generalisation to other sizes</h3>" + _legend(section, colours))
            parts.append(_gallery("", sizes, BAND.partition("; dashed")[0]))
    if found:
        parts.append(_pictures(found, colours))
    parts.append(_runs(section, colours))
    return "".join(parts) + "</section>"


def _by(section: Section) -> str:
    keys = ", ".join(heading(key) for key in section.keys)
    words = f"Grouped by {keys}; the seeds of a group are averaged." if keys else "All runs are of one kind."
    hidden = len(section.groups) - len(charts.shown_groups(section))
    return words + (f" Charts show the best {charts.MOST_GROUPS} groups, the table all." if hidden else "")


def _key(label: str, colours: dict[str, int]) -> str:
    """The mark of a group, for legends; nothing for groups that no chart shows."""
    if label not in colours:
        return ""
    index = colours[label]
    return (
        f'<svg class="key c{index % COLOURS}" viewBox="-6 -6 12 12" aria-hidden="true">'
        f'<path d="{shape(index)}"/></svg>'
    )


def _legend(section: Section, colours: dict[str, int]) -> str:
    groups = charts.shown_groups(section)
    items = [f"<li>{_key(group.label, colours)}{escape(group.label)}</li>" for group in groups]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _table(section: Section, colours: dict[str, int]) -> str:
    left = max(1, len(section.keys))
    heads = [
        f'<th scope="col"{" class=n" if index >= left else ""}>{escape(title)}</th>'
        for index, title in enumerate(tables.columns(section))
    ]
    lines = []
    for group, row in zip(section.groups, tables.rows(section), strict=True):
        cells = []
        for index, cell in enumerate(row):
            kind = "n" * (index >= left) + " best" * cell.best
            order = "" if cell.order == float("inf") else str(cell.order)
            mark = _key(group.label, colours) if index == 0 else ""
            cells.append(
                f'<td class="{kind.strip()}" data-v="{escape(order)}">{mark}{escape(cell.text)}</td>'
            )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _gallery(title: str, found: Sequence[charts.Chart], note: str) -> str:
    figures = []
    for chart in found:
        views = "".join(
            f'<div class="{kind}">{drawn}</div>' if kind else drawn for kind, drawn in chart.views.items()
        )
        small = f"<small>{escape(chart.note)}</small>" if chart.note else ""
        figures.append(f"<figure><figcaption>{escape(chart.title)}{small}</figcaption>{views}</figure>")
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'{head}<p class=quiet>{escape(note)}</p><div class="charts">{"".join(figures)}</div>'


def _curves(section: Section, colours: dict[str, int], index: int) -> str:
    found = charts.learning_curves(section, colours)
    if not found:
        return "<h3>Learning curves</h3><p class=quiet>These runs have logged none.</p>"
    axes = (("sequences", "sequences"), ("seconds", "time"))
    across = _switch(f"x{index}", "Horizontal axis", axes, "x-")
    up = _switch(f"y{index}", "Vertical axis", (("linear", "linear"), ("log", "logarithmic")), "y-")
    return (
        f'<div class="curves"><h3>Learning curves</h3>{_legend(section, colours)}'
        f'<div class="switches">{across}{up}</div>{_gallery("", found, BAND)}</div>'
    )


def _pictures(found: Sequence[Album], colours: dict[str, int]) -> str:
    parts = ["<h3>What the memories do</h3><p class=quiet>of the best run of each group</p>"]
    for album in found:
        figures = "".join(
            f"<figure><figcaption>{escape(picture.title)}</figcaption>"
            f'<div class="picture" tabindex="0"><img src="{picture.address}" '
            f'width="{picture.width}" height="{picture.height}" alt="{escape(picture.title)}"></div></figure>'
            for picture in album.pictures
        )
        left = f" {album.left_out} more in {album.run.folder / 'pictures'}." if album.left_out else ""
        seed = f"seed {album.run.seed}" if album.run.seed is not None else album.run.folder.name
        head = f"{_key(album.group.label, colours)}{escape(album.group.label)}"
        more = f" <span class=quiet>{escape(f'{seed}.{left}')}</span>"
        opened = " open" if album is found[0] else ""
        parts.append(
            f'<details{opened}><summary>{head}{more}</summary><div class="album">{figures}</div></details>'
        )
    return "".join(parts)


def _runs(section: Section, colours: dict[str, int]) -> str:
    parts = ["<h3>Runs</h3><p class=quiet>and the command that makes each again</p>"]
    for group in section.groups:
        done = tables.counts(group) if section.task else str(len(group.runs))
        head = f"{_key(group.label, colours)}{escape(group.label)} <span class=quiet>{escape(done)}</span>"
        jobs = "".join(_job(section, run) for run in group.runs)
        opened = " open" if not all(run.finished for run in group.runs) else ""
        parts.append(f"<details{opened}><summary>{head}</summary>{jobs}</details>")
    return "".join(parts)


def _job(section: Section, run: Run) -> str:
    status = "repeated" if run.repeats else run.status
    facts = [f"seed {run.seed}" if run.seed is not None else ""]
    for metric in section.metrics:
        value = run.metrics.get(section.full(metric))
        facts.append(f"{tables.words(metric)} {tables.number(value)}" if value is not None else "")
    sequences = run.summary.get("sequences")
    facts.append(f"{sequences:,} sequences" if isinstance(sequences, int) else "")
    facts += [charts.run_time(run), str(run.folder)]
    why = f'<pre class="why">{escape(run.problem)}</pre>' if run.problem else ""
    if run.repeats:
        other = escape(str(run.repeats))
        why = f"<p class=quiet>The same options and seed as {other}, or continued there: that one counts.</p>"
    if run.scalars.problem:
        why += f"<p class=quiet>{escape(run.scalars.problem)}</p>"
    made = _command(run.command) if run.command else "<p class=quiet>Nobody wrote down what was typed.</p>"
    kind = escape(status) if status.isidentifier() else "broken"
    line = escape(" · ".join(fact for fact in facts if fact))
    return f'<div class="job"><span class="chip {kind}">{escape(status)}</span> {line}{why}{made}</div>'


def _command(text: str) -> str:
    return f'<div class="command"><pre><code>{escape(text)}</code></pre></div>'
