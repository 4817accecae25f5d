"""Saved runs: a trained model loaded, or tested again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mannlab.contracts import Task
from mannlab.errors import CheckpointError
from mannlab.model import MANN, assemble
from mannlab.training.callbacks import MemoryHealth, Progress
from mannlab.training.checkpoints import (
    IDENTITY,
    check_data,
    find_checkpoint,
    load_weights,
    read_checkpoint,
    read_config,
    replace_file,
)
from mannlab.training.data import StreamData
from mannlab.training.environment import quiet, seed_everything, set_threads
from mannlab.training.generalisation import TITLE, generalisation, largest_trained, reached_by
from mannlab.training.module import MannModule
from mannlab.training.summary import print_results, versions, write_json
from mannlab.training.trainer import make_data, make_trainer


@dataclass(frozen=True)
class Loaded:
    """A trained model, in evaluation mode, with its task and its run's configuration."""

    model: MANN
    task: Task
    config: dict[str, Any]


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
