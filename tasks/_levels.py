"""Test sets at sizes beyond those trained on, which tasks share."""

from __future__ import annotations

from collections.abc import Sequence

from mannlab.contracts import Split

SHARE = 5  # a level has a fifth of the main set's sequences


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
