"""Results at several sizes as one picture: what the test sets with a level measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mannlab.contracts import Split, Task
from mannlab.plots.generalisation import Points, draw_generalisation

TITLE = "generalisation"


def generalisation(
    task: Task,
    metrics: Mapping[str, float],
    trained: int | Mapping[str, int] | None = None,
    stage: str = "test",
) -> Any:
    """The watched and the main metric against size; None if fewer than two sizes were measured.

    Args:
        task: whose splits have levels; the kind of size is what comes before the number in their label.
        metrics: ``split/metric`` to value.
        trained: the largest size of training, of all kinds or by kind, if known.
        stage: whose splits.

    Returns:
        A Matplotlib figure, or None.
    """
    names = dict.fromkeys((task.objective.watched, task.objective.metric))
    panels: dict[str, dict[str, Points]] = {}
    for name in names:
        kinds: dict[str, list[tuple[int, float]]] = {}
        for split in task.splits(stage):
            value = metrics.get(f"{split.stream}/{name}")
            if split.level is not None and value is not None:
                kinds.setdefault(kind_of(split), []).append((split.level, value))
        if kinds:
            panels[name] = dict(kinds)
    if sum(len(points) for kinds in panels.values() for points in kinds.values()) < 2 * max(1, len(panels)):
        return None
    main = task.splits(stage)[0]
    mixed = {} if main.level is not None else {name: metrics.get(f"{main.stream}/{name}") for name in names}
    known = {name: value for name, value in mixed.items() if value is not None}
    return draw_generalisation(panels, trained, known, main_label(task))


def kind_of(split: Split) -> str:
    """The kind of size of a split with a level: what comes before the number in its label."""
    return split.label.removesuffix(str(split.level)).strip("_").replace("_", " ") or "size"


def main_label(task: Task) -> str:
    """What to call a set without a level: the sizes that it mixes.

    With a curriculum these are not the sizes of training, whose largest one changes.
    """
    sizes = task.trained_size
    if isinstance(sizes, int):
        kinds = [kind_of(split) for split in task.splits("test") if split.level is not None]
        sizes = {kinds[0] if kinds else "size": sizes}
    if not sizes:
        return "as trained"
    said = ", ".join(f"{kind} to {size:,}" for kind, size in sizes.items())
    return said if task.curriculum else f"as trained: {said}"


def largest_trained(task: Task, reached: int | None) -> int | Mapping[str, int] | None:
    """The largest size of training: what a curriculum has reached, or where training without one ends.

    Args:
        task: the task that was trained on.
        reached: the largest size of its curriculum, if it has one and this is known.

    Returns:
        One for all kinds of sizes or by kind, as ``Task.trained_size``.
    """
    sizes = task.trained_size
    if reached is None:
        return None if task.curriculum else sizes
    if isinstance(sizes, Mapping):
        return {kind: min(size, reached) for kind, size in sizes.items()}
    return reached


def reached_by(curriculum: Mapping[str, Any] | None) -> int | None:
    """The largest size in the state of a curriculum, of a checkpoint."""
    rises = (curriculum or {}).get("rises")
    return int(rises[-1][1]) if rises else None


def sizes(task: Task, reached: int | None) -> dict[str, Any]:
    """For the summary: ``levels`` (the size of each test set that has one) and ``trained`` (as above)."""
    levels = {split.stream: split.level for split in task.splits("test") if split.level is not None}
    return {"levels": levels, "trained": largest_trained(task, reached) if levels else None}
