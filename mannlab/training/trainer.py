"""Lightning's trainer and the data for it, as a configuration asks for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Checkpoint

from mannlab.contracts import Task
from mannlab.errors import ConfigError, choices
from mannlab.training.build import check_numbers, duration, nested
from mannlab.training.checkpoints import AtomicCheckpointIO
from mannlab.training.data import StreamData
from mannlab.training.environment import quiet

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
    settings["accelerator"] = _accelerator(settings.get("accelerator", "auto"))
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


def _accelerator(asked: Any) -> Any:
    """What Lightning is asked for: by itself it would take an Apple GPU, which sums no metrics in float64."""
    if CUDAAccelerator.is_available():
        return asked
    apple = MPSAccelerator.is_available()
    if asked in ("gpu", "cuda", "mps"):
        why = "Apple's GPUs have no float64" if apple and asked != "cuda" else "there is no GPU here"
        raise ConfigError(f"trainer.accelerator: '{asked}' is not allowed: {why}.", "Use trainer=cpu.")
    return "cpu" if apple and asked == "auto" else asked


def _changed(config: Mapping[str, Any]) -> str:
    """What the user set of the trainer, to look at first."""
    given = [word for word in config.get("overrides") or [] if word.lstrip("+~").startswith("trainer")]
    return f"given: {' '.join(given)}" if given else "mannlab list trainer shows the options."
