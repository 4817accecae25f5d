"""What tasks with a size share: its range in training, and test sets at sizes beyond it."""

from __future__ import annotations

from collections.abc import Sequence

from mannlab.contracts import Split
from mannlab.errors import require

SHARE = 5  # a level has a fifth of the main set's sequences


def check_range(unit: str, least: int, most: int) -> None:
    """Raise ConfigError if ``task.max_<unit>`` is below ``task.min_<unit>``."""
    require(
        most >= least,
        f"task.max_{unit}: {most} is less than task.min_{unit}={least}.",
        f"Give a task.max_{unit} that is not below it.",
    )


def sized_splits(
    stage: str, val_samples: int, test_samples: int, *levels: tuple[str, Sequence[int], int]
) -> list[Split]:
    """The splits of a stage: the main one, and for validation and test those of :func:`level_splits`.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        val_samples: of the main validation set.
        test_samples: of the main test set.
        levels: unit, sizes and the largest size of training, for each kind of size.
    """
    if stage == "train":
        return [Split("train")]
    samples = val_samples if stage == "val" else test_samples
    further = [level_splits(stage, samples, *level) for level in levels]
    return [Split(stage, samples), *(split for splits in further for split in splits)]


def level_splits(stage: str, samples: int, unit: str, sizes: Sequence[int], trained: int) -> list[Split]:
    """A split for each size.

    Args:
        stage: ``"test"`` takes all sizes; ``"val"`` the first that is larger than ``trained``, so that it
            shows while training how the model generalises.
        samples: of the main set.
        unit: what the size counts; the label is ``length_30`` for 30 of ``"length"``.
        sizes: the levels.
        trained: the largest size of training.
    """
    shown = sizes if stage == "test" else [size for size in sizes if size > trained][:1]
    few = max(1, samples // SHARE)
    return [Split(stage, few, level=size, label=f"{unit}_{size}") for size in shown]
