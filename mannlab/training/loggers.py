"""Loggers that write straight into the run folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


class TensorBoard(TensorBoardLogger):
    """TensorBoard events in the run folder itself, so that a folder of runs shows one curve a run.

    Args:
        save_dir: the run folder.
        flush_secs: seconds between writes to disk.
    """

    def __init__(self, save_dir: str | Path, flush_secs: int = 30) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, flush_secs=flush_secs)

    def go_on(self, step: int) -> None:
        """The run goes on in its own folder: what was written of later steps is written again."""
        self._kwargs["purge_step"] = step + 1

    def save(self) -> None:
        """Nothing more to write: the run's options are in config.yaml."""

    def finalize(self, status: str) -> None:
        """Keep the file open for the test after the training; :meth:`close` ends it."""
        if self._experiment is not None:
            self.experiment.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._experiment is not None:
            self.experiment.close()


class Table(CSVLogger):
    """``metrics.csv`` in the run folder, one row a logged step.

    Args:
        save_dir: the run folder.
        flush_every_n_steps: write the file at each this many steps.
    """

    def __init__(self, save_dir: str | Path, flush_every_n_steps: int = 100) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=flush_every_n_steps)

    def go_on(self, step: int) -> None:
        """The run goes on in its own folder: the rows of before stay, but for those of later steps."""
        path = Path(self.log_dir) / "metrics.csv"
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if float(row["step"]) <= step]
        path.unlink()
        self.experiment.metrics = [{key: value for key, value in row.items() if value} for row in rows]
        self.experiment.save()

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: the run's options are in config.yaml."""
