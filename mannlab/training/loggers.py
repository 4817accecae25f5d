"""Loggers: files in the run folder, and services that are installed beside mannlab."""

from __future__ import annotations

import csv
import logging
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mannlab.datasets.cache import offline as networks_are_banned
from mannlab.errors import require
from mannlab.training.checkpoints import replace_file

log = logging.getLogger(__name__)

PROJECTOR = "projector"


class TensorBoard(TensorBoardLogger):
    """TensorBoard events in the run folder itself, so that a folder of runs shows one curve a run.

    Args:
        save_dir: the run folder.
        flush_secs: seconds between writes to disk.
    """

    def __init__(self, save_dir: str | Path, flush_secs: int = 30) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, flush_secs=flush_secs)
        self._embeddings: dict[str, None] = {}
        self._compared = False

    def go_on(self, step: int) -> None:
        """The run goes on in its own folder: what was written of later steps is written again."""
        self._kwargs["purge_step"] = step + 1

    def save(self) -> None:
        """Nothing more to write: the run's options are in config.yaml."""

    def finalize(self, status: str) -> None:
        """Keep the file open for the test after the training; :meth:`close` ends it."""
        if self._experiment is not None:
            self.experiment.flush()

    def close(self, status: str = "completed") -> None:
        """Write what is left and how the run ended, and close the file."""
        if self._experiment is None:
            return
        if self._compared:
            self.experiment._get_file_writer().add_summary(_session_end(status))
        self.experiment.close()

    def options(self, options: Mapping[str, bool | float | str]) -> None:
        """A row of the tab HPARAMS.

        It is not told which metrics to show: then TensorBoard shows those of all runs, and options in which
        runs differ come first.
        """
        from torch.utils.tensorboard.summary import hparams

        self._compared = True
        _, start, _ = hparams(dict(options), {})
        self.experiment._get_file_writer().add_summary(start)

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Charts of the tab CUSTOM SCALARS, by section and title: regular expressions of tags."""
        lines = {
            section: {title: ["Multiline", list(tags)] for title, tags in titled.items()}
            for section, titled in charts.items()
        }
        self.experiment.add_custom_scalars(lines)

    def embedding(self, name: str, vectors: torch.Tensor, labels: Mapping[str, Sequence[str]]) -> None:
        """Points of the tab PROJECTOR; those of this name before are replaced.

        Args:
            name: of the set of points.
            vectors: ``[points, width]``.
            labels: one for each point, by column.
        """
        folder = Path(self.log_dir) / PROJECTOR
        stem = name.replace("/", "_").replace(" ", "_")
        points = "\n".join("\t".join(f"{number:.6g}" for number in row) for row in vectors.tolist())
        rows = zip(*labels.values(), strict=True)
        # A single column has no heading: TensorBoard would take it for a label.
        lines = [] if len(labels) == 1 else ["\t".join(labels)]
        lines += ["\t".join(row) for row in rows]
        for kind, text in (("vectors", points), ("labels", "\n".join(lines))):
            replace_file(folder / f"{stem}_{kind}.tsv", lambda path, text=text: path.write_text(text + "\n"))
        self._embeddings[name] = None
        replace_file(
            Path(self.log_dir) / "projector_config.pbtxt", lambda path: path.write_text(self._points())
        )

    def _points(self) -> str:
        entry = (
            'embeddings {{\n  tensor_name: "{name}"\n  tensor_path: "{folder}/{stem}_vectors.tsv"\n'
            '  metadata_path: "{folder}/{stem}_labels.tsv"\n}}\n'
        )
        stems = ((name, name.replace("/", "_").replace(" ", "_")) for name in self._embeddings)
        return "".join(entry.format(name=name, folder=PROJECTOR, stem=stem) for name, stem in stems)


def _picture(name: str, path: Path) -> Any:
    """A PNG file as TensorBoard keeps one: the same bytes, neither drawn nor encoded a second time."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # of the header, which comes first
    picture = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=data)
    return Summary(value=[Summary.Value(tag=name, image=picture)])


def _session_end(status: str) -> Any:
    """The note that TensorBoard's HPARAMS reads at the end of a run. Its own function wants TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    ended = {"failed": "STATUS_FAILURE", "interrupted": "STATUS_UNKNOWN"}.get(status, "STATUS_SUCCESS")
    info = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(ended))
    content = plugin_data_pb2.HParamsPluginData(session_end_info=info, version=metadata.PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])


class Table(CSVLogger):
    """``metrics.csv`` in the run folder, one row a logged step.

    Args:
        save_dir: the run folder.
        flush_every_n_steps: write the file at each this many steps.
    """

    def __init__(self, save_dir: str | Path, flush_every_n_steps: int = 100) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=flush_every_n_steps)
        self._every, self._written = flush_every_n_steps, 0

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """As Lightning's, which writes the file at steps that divide evenly alone: few of ours do."""
        super().log_metrics(metrics, step)
        if step is not None and step - self._written >= self._every:
            self.save()
            self._written = step

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


def installed(module: str, logger: str) -> None:
    """Raise ConfigError if what ``logger`` needs is not installed."""
    require(
        find_spec(module) is not None,
        f"logger={logger}: the package {module} is not installed.",
        f"Install it (pip install 'mannlab[{logger}]'), or use logger=tensorboard, csv or none.",
    )


def weights_and_biases(
    save_dir: str | Path,
    project: str = "mannlab",
    name: str | None = None,
    offline: bool | None = None,
    **options: Any,
) -> WandbLogger:
    """Weights & Biases, by Lightning's logger.

    Args:
        save_dir: the run folder; what is not sent yet lies in its folder ``wandb``.
        project: of the runs.
        name: of this run; None: that of its folder.
        offline: send nothing, keep it for ``wandb sync``; None: where ``MANNLAB_OFFLINE`` is set.
        options: any other of ``WandbLogger`` and ``wandb.init``.

    Raises:
        ConfigError: the package is not installed.
    """
    installed("wandb", "wandb")
    silent = networks_are_banned() if offline is None else offline
    name = Path(save_dir).name if name is None else name
    return WandbLogger(name=name, save_dir=save_dir, offline=silent, project=project, **options)


def mlflow(
    save_dir: str | Path,
    experiment_name: str = "mannlab",
    run_name: str | None = None,
    tracking_uri: str | None = None,
    **options: Any,
) -> MLFlowLogger:
    """MLflow, by Lightning's logger.

    Args:
        save_dir: the run folder.
        experiment_name: of the runs.
        run_name: of this run; None: that of its folder.
        tracking_uri: where the runs are kept, such as ``http://localhost:5000``; None: what
            ``MLFLOW_TRACKING_URI`` says, else the database ``mlflow.db`` in the run folder.
        options: any other of ``MLFlowLogger``.

    Raises:
        ConfigError: the package is not installed.
    """
    installed("mlflow", "mlflow")
    folder = Path(save_dir)
    where = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    if where.startswith("sqlite"):
        folder.mkdir(parents=True, exist_ok=True)
        # MLflow's own choice is the folder in which the program was started.
        options.setdefault("artifact_location", (folder / "mlflow").resolve().as_uri())
    name = folder.name if run_name is None else run_name
    return MLFlowLogger(experiment_name=experiment_name, run_name=name, tracking_uri=where, **options)


# ---------------------------------------------------------------------- what some of them take


def show_picture(loggers: Iterable[Any], name: str, path: Path, step: int) -> None:
    """A picture, to every logger that takes one.

    Args:
        loggers: Lightning's.
        name: such as ``"val/stream"``.
        path: a PNG file.
        step: optimizer steps so far.
    """
    for logger in loggers:
        with _lenient(logger):
            if isinstance(logger, TensorBoardLogger):
                logger.experiment._get_file_writer().add_summary(_picture(name, path), step)
            elif isinstance(logger, WandbLogger):
                logger.log_image(name, [str(path)], step=step)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(path), "pictures")


def show_text(loggers: Iterable[Any], name: str, text: str, step: int) -> None:
    """Markdown, to every logger that takes it."""
    for logger in loggers:
        with _lenient(logger):
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(name, text, global_step=step)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_text(logger.run_id, text, f"texts/{name.replace('/', '_')}.md")


def show_options(loggers: Iterable[Any], options: Mapping[str, Any]) -> None:
    """The run's options, to loggers that compare runs by them."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.options(options)
        elif isinstance(logger, (WandbLogger, MLFlowLogger)):
            logger.log_hyperparams(dict(options))


def close(loggers: Iterable[Any], status: str) -> None:
    """Write what is left, and say how the run ended."""
    for logger in loggers:
        with _lenient(logger):
            if isinstance(logger, TensorBoard):
                logger.close(status)
            elif isinstance(logger, WandbLogger) and logger._experiment is not None:
                logger.experiment.finish(exit_code=0 if status != "failed" else 1)
            elif isinstance(logger, MLFlowLogger):
                logger.finalize({"failed": "FAILED", "interrupted": "KILLED"}.get(status, "FINISHED"))


class _lenient:
    """What a service refuses is a warning, once, and not the end of the run."""

    _said: set[type] = set()  # noqa: RUF012

    def __init__(self, logger: Any) -> None:
        self.kind = type(logger)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception) or isinstance(error, OSError) or self.kind is TensorBoard:
            return False
        if self.kind not in self._said:
            self._said.add(self.kind)
            log.warning("%s did not take something: %s: %s", self.kind.__name__, type(error).__name__, error)
        return True
