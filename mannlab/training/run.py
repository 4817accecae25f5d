"""A run from its configuration to its summary. The order of the lines is the order of things."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Checkpoint

from mannlab.contracts import Task
from mannlab.errors import CheckpointError, ConfigError, choices
from mannlab.model import MANN, assemble
from mannlab.training.build import check_numbers, duration, instantiate_all, nested
from mannlab.training.callbacks import (
    Checkpoints,
    Dashboard,
    GracefulStop,
    HyperParameters,
    MemoryHealth,
    Progress,
    StopWhenSolved,
)
from mannlab.training.callbacks.hparams import options_table
from mannlab.training.callbacks.progress import seconds_allowed
from mannlab.training.callbacks.stop import Interrupted, keyboard, undisturbed
from mannlab.training.checkpoints import (
    CANNOT_WRITE,
    IDENTITY,
    AtomicCheckpointIO,
    WriteError,
    check_data,
    check_same,
    find_checkpoint,
    load_weights,
    read_checkpoint,
    replace_file,
    resolve,
    say_resumed,
)
from mannlab.training.data import StreamData
from mannlab.training.environment import quiet, seed_everything, set_threads
from mannlab.training.generalisation import TITLE, generalisation, largest_trained, reached_by, sizes
from mannlab.training.loggers import Table, TensorBoard, close
from mannlab.training.module import MannModule
from mannlab.training.summary import (
    FILE,
    FILE_ONLY,
    log_results,
    print_results,
    repeat_command,
    versions,
    write_json,
)

log = logging.getLogger(__name__)

__all__ = ["Loaded", "evaluate", "find_checkpoint", "load", "train"]


# Trainer options that would begin the stream anew, and the value that leaves it alone.
ENDLESS = {"limit_train_batches": 1.0, "overfit_batches": 0.0, "min_epochs": 0}
ENDLESS["reload_dataloaders_every_n_epochs"] = 0

# Trainer options that a run gives itself, and what to use instead.
OURS = {
    "default_root_dir": "Choose where runs go with outputs=<folder>.",
    "callbacks": "Add callbacks by name: +callbacks.<name>._target_=<class>.",
    "logger": "Choose logger=tensorboard, csv, wandb, mlflow or none.",
    "plugins": "Precision and strategy have keys of their own: trainer.precision, trainer.strategy.",
    "use_distributed_sampler": "Every device gets its own share of the data already.",
    "enable_checkpointing": "Switch checkpoints off with callbacks.checkpoints=null.",
}


@dataclass(frozen=True)
class Loaded:
    """A trained model, in evaluation mode, with its task and its run's configuration."""

    model: MANN
    task: Task
    config: dict[str, Any]


def train(config: dict[str, Any], run_dir: Path, also: Sequence[Any] = ()) -> dict[str, Any]:
    """Train, test, and write down what came out.

    Args:
        config: the whole configuration, as plain containers.
        run_dir: an existing or new folder for everything that the run leaves.
        also: callbacks besides those of the configuration.

    Returns:
        The summary, also in ``run_dir/summary.json``.

    Raises:
        MannlabError: something the user can mend; the summary then says ``failed`` and why.
    """
    began = time.monotonic()
    run_dir = Path(run_dir).resolve()
    run = _Run(config, run_dir, also)
    try:
        run.prepare()
        with keyboard():
            run.fit()
            if config.get("test", True) and run.status != "interrupted":
                run.test()
    except BaseException as error:
        run.failed(error)
        if not isinstance(error, Interrupted):
            run.finish(began)
            if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                raise WriteError(
                    f"Cannot write in {run_dir}: {error}", "Make room there, or choose another output folder."
                ) from error
            raise
    return run.finish(began)


class _Run:
    """What :func:`train` holds between its steps."""

    def __init__(self, config: dict[str, Any], run_dir: Path, also: Sequence[Any] = ()) -> None:
        self.config, self.run_dir, self.also = config, run_dir, also
        self.status = "completed"
        self.error: str | None = None
        self.stopped_by: str | None = None
        self.resumed: Path | None = None
        self.task: Task | None = None
        self.model: MANN | None = None
        self.module: MannModule | None = None
        self.data: StreamData | None = None
        self.trainer: Any = None
        self.callbacks: list[Any] = []

    def prepare(self) -> None:
        """Everything up to the first batch."""
        quiet()
        seed_everything(self.config["seed"])
        set_threads(self.config)
        self.model, self.task = assemble(self.config)
        self.resumed = resolve(self.config.get("ckpt_path"), self.run_dir)
        if self.resumed is not None:
            saved = read_checkpoint(self.resumed)
            check_same(saved["hyper_parameters"], self.config, self.resumed, IDENTITY)
            step = int(saved.get("global_step", 0))
        self.module = MannModule(self.model, self.task, self.config | {"version": versions()["mannlab"]})
        self.data = make_data(self.task, self.config)
        self.callbacks = [*instantiate_all(self.config.get("callbacks"), "callbacks"), *self.also]
        loggers = instantiate_all(self.config.get("logger"), "logger", save_dir=self.run_dir)
        for callback in self.callbacks:
            if isinstance(callback, HyperParameters):
                callback.options = options_table(self.config)
            if isinstance(callback, Dashboard):
                callback.config = self.config
            if isinstance(callback, Checkpoints) and self.resumed is not None:
                callback.resumed_from(self.resumed)
        self.trainer = make_trainer(_for_task(self.config, self.task), self.run_dir, self.callbacks, loggers)
        if self.trainer.is_global_zero:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            keep_config(self.config, self.run_dir)
            if self.resumed is not None and self.resumed.parent.parent == self.run_dir:
                for logger in loggers:
                    if isinstance(logger, (Table, TensorBoard)):
                        logger.go_on(step)
            self._log_start()
            if self.resumed is not None:
                say_resumed(self.resumed, step, self.trainer.max_steps)

    def _log_start(self) -> None:
        command = repeat_command(self.config) or "started from Python"
        known = ", ".join(f"{name} {version}" for name, version in versions().items())
        count = sum(parameter.numel() for parameter in self.model.parameters()) if self.model else 0
        where = f"{self.trainer.world_size} x {self.trainer.strategy.root_device}"
        for line in (
            command,
            f"{known}; {where}, {torch.get_num_threads()} threads; {count:,} parameters",
        ):
            log.info("%s", line, extra=FILE_ONLY)

    def fit(self) -> None:
        """Train, and say how it ended."""
        self.trainer.fit(self.module, datamodule=self.data, ckpt_path=self.resumed, weights_only=True)
        if any(callback.stopped for callback in self.found(GracefulStop)):
            self.status = "interrupted"
        elif any(callback.solved and callback.enabled for callback in self.found(StopWhenSolved)):
            self.status = "solved"
        elif self.trainer.global_step == self.trainer.max_steps:
            self.stopped_by = "trainer.max_steps"
        elif seconds_allowed(self.trainer) == 0:
            self.stopped_by = "trainer.max_time"

    def test(self) -> None:
        """Measure the best weights (the last ones if nothing was validated) on the test splits."""
        assert self.model is not None
        self.trainer.strategy.barrier("checkpoints")
        best = self.run_dir / "checkpoints" / "best.ckpt"
        if best.is_file():
            saved = read_checkpoint(best)
            load_weights(self.model, saved, best)
            step = int(saved.get("global_step", 0))
            if step != self.trainer.global_step:
                log.info("tested: best.ckpt, of step %s", f"{step:,}")
        self.trainer.test(self.module, datamodule=self.data, verbose=False)

    def found(self, kind: type) -> list[Any]:
        return [callback for callback in self.callbacks if isinstance(callback, kind)]

    def failed(self, error: BaseException) -> None:
        stopped = isinstance(error, (KeyboardInterrupt, Interrupted)) or any(
            callback.stopped for callback in self.found(GracefulStop)
        )
        self.status = "interrupted" if stopped else "failed"
        self.error = f"{type(error).__name__}: {error}"

    def finish(self, began: float) -> dict[str, Any]:
        """Write and print the summary, on the first rank."""
        with undisturbed():
            return self._finish(began)

    def _finish(self, began: float) -> dict[str, Any]:
        summary = self.summary(time.monotonic() - began)
        close(self.trainer.loggers if self.trainer else [], self.status)
        if self.trainer is not None and not self.trainer.is_global_zero:
            return summary
        try:
            write_json(self.run_dir / FILE, summary)
        except Exception:
            if self.status != "failed":
                raise
        if self.status != "failed" and self.task is not None:
            print_results(self.task, summary, self.run_dir)
        log_results(self.task, summary, self.run_dir)
        return summary

    def summary(self, seconds: float) -> dict[str, Any]:
        config, task = self.config, self.task
        metrics = dict(self.module.results) if self.module else {}
        objective: dict[str, Any] = {}
        if task is not None:
            name, metric = task.splits("test")[0].stream, task.objective.metric
            value = metrics.get(f"{name}/{metric}", metrics.get(f"{task.splits('val')[0].stream}/{metric}"))
            objective = {"metric": metric, "mode": task.objective.mode, "value": value}
            objective |= {"shown": task.objective.watched, "solved": task.objective.solved}
        level = self.data.curriculum.ceiling if self.data else None
        solved = [callback.sequences_until_solved for callback in self.found(StopWhenSolved)]
        return {
            "status": self.status,
            "stopped_by": self.stopped_by,
            "task": config["task"].get("name"),
            "task_label": type(task).label(config["task"]) if task else config["task"].get("name"),
            "controller": config["controller"].get("name"),
            "memory": config["memory"].get("name"),
            "seed": config.get("seed"),
            "versions": versions(),
            "steps": self.trainer.global_step if self.trainer else 0,
            "sequences": self.data.consumed if self.data else 0,
            "wall_seconds": seconds,
            "parameters": sum(p.numel() for p in self.model.parameters()) if self.model else None,
            "metrics": metrics,
            "objective": objective,
            "sequences_until_solved": solved[0] if solved else None,
            "curriculum_level": level,
            "generalisation": sizes(task, level) if task else {},
            "resumed_from": str(self.resumed) if self.resumed else None,
            "facts": task.facts() if task else {},
            "overrides": list(config.get("overrides") or []),
            "config": config,
            "error": self.error,
        }


def make_data(task: Task, config: Mapping[str, Any]) -> StreamData:
    """The data module that a configuration asks for.

    Raises:
        ConfigError: an impossible batch size or number of workers.
    """
    for key, least in (("batch_size", 1), ("workers", 0), ("eval_batch_size", 1)):
        value = config.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{key}: {value!r} is not allowed.", f"Give a whole number, at least {least}.")
    return StreamData(
        task, config["seed"], config["batch_size"], config.get("workers", 0), config.get("eval_batch_size")
    )


def _for_task(config: dict[str, Any], task: Task) -> dict[str, Any]:
    trainer = config["trainer"]
    if not task.continuous or trainer.get("strategy") != "ddp":
        return config
    # A batch that goes on where another ended does not use what the first state is made of.
    return {**config, "trainer": {**trainer, "strategy": "ddp_find_unused_parameters_true"}}


def make_trainer(config: Mapping[str, Any], run_dir: Path, callbacks: list[Any], loggers: list[Any]) -> Any:
    """A Lightning trainer for endless streams.

    Raises:
        ConfigError: Lightning does not take the options.
    """
    quiet()
    for key, left in ENDLESS.items():
        value = config["trainer"].get(key, left)
        # To Lightning 1.0 is all of it, and 1 is one batch.
        if value is not None and (value != left or (left and not isinstance(value, float))):
            raise ConfigError(
                f"trainer.{key}: {value!r} is not allowed: training is one endless epoch.",
                "Say how long with trainer.max_steps, how often to validate with trainer.val_check_interval.",
            )
    settings: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": None,
        "max_epochs": -1,
    }
    given = {key: value for key, value in config["trainer"].items() if key != "_target_"}
    settings |= {key: nested(value, f"trainer.{key}") for key, value in given.items()}
    known = inspect.signature(lightning.pytorch.Trainer).parameters
    for key in settings:
        if key in OURS:
            raise ConfigError(f"trainer.{key}: this is set by the run itself.", OURS[key])
        if key not in known:
            what = f"trainer.{key}: this is no option of Lightning's Trainer."
            raise ConfigError(what, choices(key, known.keys() - OURS.keys(), "options"))
    check_numbers(lightning.pytorch.Trainer, settings, "trainer")
    settings["max_time"] = duration(settings.get("max_time"), "trainer.max_time")
    _check_accelerator(settings.get("accelerator"))
    try:
        trainer = lightning.pytorch.Trainer(
            **settings,
            default_root_dir=run_dir,
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: Lightning refused these options: {error}", _changed(config)) from error
    # Batches are converted when they are moved: Lightning cannot look into a frozen dataclass.
    setattr(trainer.precision_plugin, "convert_input", lambda batch: batch)  # noqa: B010
    return trainer


def _check_accelerator(accelerator: Any) -> None:
    kinds = {"gpu": (CUDAAccelerator, MPSAccelerator), "cuda": (CUDAAccelerator,)}.get(accelerator)
    if kinds and not any(kind.is_available() for kind in kinds):
        raise ConfigError(
            f"trainer.accelerator: '{accelerator}' is not allowed: there is no GPU here.",
            "Use trainer=cpu.",
        )


def _changed(config: Mapping[str, Any]) -> str:
    """What the user set of the trainer, to look at first."""
    given = [word for word in config.get("overrides") or [] if word.lstrip("+~").startswith("trainer")]
    return f"given: {' '.join(given)}" if given else "mannlab list trainer shows the options."


def keep_config(config: Mapping[str, Any], run_dir: Path) -> None:
    """Leave ``config.yaml`` in the run folder unless the program already did."""
    path = run_dir / "config.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_config(checkpoint: Path) -> dict[str, Any] | None:
    """The ``config.yaml`` of the run that a checkpoint lies in, or None."""
    path = checkpoint.parent.parent / "config.yaml"
    if not path.is_file():
        return None
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else None


def evaluate(config: dict[str, Any], checkpoint: Path, out: Path | None = None) -> dict[str, Any]:
    """Test a checkpoint's weights, as ``config`` says (the run's own, or with other test options).

    Args:
        config: the whole configuration.
        checkpoint: a run folder or a ``.ckpt`` file.
        out: JSON file to write, or None. Where there are test sets of several sizes, a picture of the metrics
            against size is left beside it, ``<name>_generalisation.png``.

    Returns:
        ``{"checkpoint", "task", "metrics", "objective", "facts", "versions", "config"}``.

    Raises:
        CheckpointError: the file is missing, damaged or refused, or its weights do not fit.
    """
    quiet()
    seed_everything(config["seed"])
    set_threads(config)
    path = find_checkpoint(checkpoint)
    model, task = assemble(config)
    saved = read_checkpoint(path)
    check_data(saved, task, path)
    load_weights(model, saved, path, config)
    module, data = MannModule(model, task, config), make_data(task, config)
    trainer = make_trainer(config, path.parent, [Progress(), MemoryHealth()], [])
    trainer.test(module, datamodule=data, verbose=False)
    metrics = dict(module.results)
    main = f"{task.splits('test')[0].stream}/{task.objective.metric}"
    summary = {
        "checkpoint": str(path),
        "step": int(saved.get("global_step", 0)),
        "task": config["task"].get("name"),
        "task_label": type(task).label(config["task"]),
        "metrics": metrics,
        "objective": {
            "metric": task.objective.metric,
            "mode": task.objective.mode,
            "value": metrics.get(main),
        },
        "facts": task.facts(),
        "versions": versions(),
        "config": config,
    }
    if trainer.is_global_zero:
        if out is not None:
            write_json(Path(out), summary)
            state = saved.get(StreamData.__qualname__, {})
            trained = largest_trained(task, reached_by(state.get("curriculum")))
            figure = generalisation(task, metrics, trained)
            if figure is not None:
                picture = Path(out).with_name(f"{Path(out).stem}_{TITLE}.png")
                replace_file(picture, lambda temporary: figure.savefig(temporary, format="png"))
        print_results(task, summary, None)
    return summary


def load(run_or_checkpoint: str | Path, which: str = "best") -> Loaded:
    """A trained model, ready to use.

    Args:
        run_or_checkpoint: a run folder or a ``.ckpt`` file.
        which: ``"best"`` or ``"last"``, when a folder is given.

    Raises:
        CheckpointError: missing, damaged, refused, or not fitting.
    """
    path = find_checkpoint(Path(run_or_checkpoint), which)
    saved = read_checkpoint(path)
    parameters = saved["hyper_parameters"]
    missing = [key for key in IDENTITY if key not in parameters]
    if missing:
        raise CheckpointError(
            f"{path} does not say what model it is of (no {', '.join(missing)}).", "Train it again."
        )
    config = {**(read_config(path) or {}), **{key: parameters[key] for key in IDENTITY}}
    model, task = assemble(config)
    check_data(saved, task, path)
    load_weights(model, saved, path)
    return Loaded(model.eval(), task, config)
