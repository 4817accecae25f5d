"""Runs that several tests report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report import making


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Two groups with seeds and pictures, a failure, a running run, and another task."""
    for name in ("lstm", "gru"):
        for seed in (1, 2, 3):
            making.run(
                tmp_path / "sweep" / f"{name}-{seed}",
                seed * (2.0 if name == "gru" else 0.01),
                seed,
                {"controller__name": name},
                curve=[9.0, 4.0 / seed, 0.02 * seed],
                pictures=["test_stream"],
            )
    making.run(tmp_path / "failed", 9.0, 4, {"controller__name": "gru"}, status="failed", error=making.EVIL)
    making.run(tmp_path / "running", None, 5, {"controller__name": "gru"}, curve=[5.0])
    making.run(tmp_path / "other", 1.0, 1, {"task": {"name": "recall"}}, curve=None)
    return tmp_path
