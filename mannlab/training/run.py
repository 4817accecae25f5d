"""A run from its configuration to its summary. The order of the lines is the order of things."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from mannlab.contracts import Task
from mannlab.files import read_json
from mannlab.model import MANN, assemble
from mannlab.training.build import instantiate_all
from mannlab.training.callbacks import (
    Checkpoints,
    Dashboard,
    GracefulStop,
    HyperParameters,
    StopWhenSolved,
)
from mannlab.training.callbacks.hparams import options_table
from mannlab.training.callbacks.progress import seconds_allowed
from mannlab.training.callbacks.stop import Interrupted, keyboard, undisturbed
from mannlab.training.checkpoints import (
    CANNOT_WRITE,
    FOLDER,
    IDENTITY,
    WriteError,
    check_left,
    check_same,
    check_weights,
    load_weights,
    of_run,
    read_checkpoint,
    read_config,
    resolve,
)
from mannlab.training.data import StreamData
from mannlab.training.environment import quiet, seed_everything, set_threads
from mannlab.training.generalisation import sizes
from mannlab.training.loggers import Table, TensorBoard, close
from mannlab.training.module import MannModule
from mannlab.training.retuned import Retuned, say
from mannlab.training.summary import (
    FILE,
    FILE_ONLY,
    log_results,
    print_results,
    repeat_command,
    versions,
    write_json,
)
from mannlab.training.trainer import make_data, make_trainer

log = logging.getLogger(__name__)


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
            run.finish()
            if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                raise WriteError(
                    f"Cannot write in {run_dir}: {error}", "Make room there, or choose another output folder."
                ) from error
            raise
    return run.finish()


class _Run:
    """What :func:`train` holds between its steps."""

    def __init__(self, config: dict[str, Any], run_dir: Path, also: Sequence[Any] = ()) -> None:
        self.config, self.run_dir, self.also = config, run_dir, also
        self.status = "completed"
        self.error: str | None = None
        self.stopped_by: str | None = None
        self.resumed: Path | None = None
        self.began = time.monotonic()
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
        before, resized = None, False
        changed: dict[str, tuple[str, str]] = {}
        if self.resumed is not None:
            saved = read_checkpoint(self.resumed)
            before = saved.get("tuning") or read_config(self.resumed)
            self.began -= float(saved.get("seconds", 0))
            changed = check_same(saved["hyper_parameters"], self.config, self.resumed, IDENTITY)
            resized = any(key.startswith("memory.") for key in changed)
            if resized:
                check_weights(self.model, saved, self.resumed, self.config)
            step = int(saved.get("global_step", 0))
        self.module = MannModule(self.model, self.task, self.config | {"version": versions()["mannlab"]})
        self.module.retuned = Retuned(before, self.module.tuning)
        self.module.resized = resized
        self.module.began = self.began
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
        if self.resumed is not None:
            check_left(self.resumed, step, self.trainer.max_steps, self.run_dir)
        if self.trainer.is_global_zero:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            keep_config(self.config, self.run_dir)
            if self.resumed is not None and of_run(self.resumed, self.run_dir):
                for logger in loggers:
                    if isinstance(logger, (Table, TensorBoard)):
                        logger.go_on(step)
            self._log_start()
            if self.resumed is not None:
                log.info("Goes on from %s at step %d.", self.resumed, step)
                if changed:
                    log.info("%s", say(changed))

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
        best = self.run_dir / FOLDER / "best.ckpt"
        # What another run left here is not this one's.
        steps = [callback.best_step for callback in self.found(Checkpoints) if callback.best_step >= 0]
        saved = read_checkpoint(best) if steps and best.is_file() else None
        if saved is not None and (step := int(saved["global_step"])) in steps:
            load_weights(self.model, saved, best)
            if step != self.trainer.global_step and self.trainer.is_global_zero:
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

    def finish(self) -> dict[str, Any]:
        """Write and print the summary, on the first rank."""
        with undisturbed():
            return self._finish()

    def _finish(self) -> dict[str, Any]:
        summary = self.summary(time.monotonic() - self.began)
        close(self.trainer.loggers if self.trainer else [], self.status)
        if self.trainer is not None and not self.trainer.is_global_zero:
            return summary
        if self.status == "failed" and not summary["steps"] and read_json(self.run_dir / FILE).get("steps"):
            return summary  # refused where an earlier run lies: its results stay
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
            value = metrics.get(f"{name}/{metric}")
            if value is None:  # not tested: what the checkpoint that would be has in validation
                best = [callback.best_value for callback in self.found(Checkpoints)]
                value = best[0] if best else metrics.get(f"{task.splits('val')[0].stream}/{metric}")
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


def _for_task(config: dict[str, Any], task: Task) -> dict[str, Any]:
    trainer = config["trainer"]
    if not task.continuous or trainer.get("strategy") != "ddp":
        return config
    # A batch that goes on where another ended does not use what the first state is made of.
    return {**config, "trainer": {**trainer, "strategy": "ddp_find_unused_parameters_true"}}


def keep_config(config: Mapping[str, Any], run_dir: Path) -> None:
    """Leave ``config.yaml`` in the run folder."""
    path = run_dir / "config.yaml"
    kept = {key: value for key, value in config.items() if key != "overrides"}
    there = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    # Taken up again as it is, it is the same run.
    if not isinstance(there, dict) or {**there, "ckpt_path": None} != {**kept, "ckpt_path": None}:
        path.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")
