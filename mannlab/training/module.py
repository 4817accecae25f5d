"""The LightningModule: a model learning a task."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from mannlab.contracts import Batch, Score, Split, Task
from mannlab.draws import Draws
from mannlab.errors import require
from mannlab.kernels.bag import RowAdam
from mannlab.model import MANN, backend
from mannlab.model.decode import Decoder
from mannlab.training.build import instantiate
from mannlab.training.carried import Carried
from mannlab.training.checkpoints import IDENTITY, check_data
from mannlab.training.data import EVALUATION_SEED, IGNORED
from mannlab.training.instruments import Instruments
from mannlab.training.resume import (
    Before,
    begin_again,
    mark_step,
    mark_unfinished,
    random_state,
    restore_random,
)
from mannlab.training.retuned import Retuned, tuning
from mannlab.training.tables import (
    WithTables,
    clip_norm,
    clip_value,
    divide,
    gather,
    has_tables,
    refuse_sparse,
    tables_of,
)

log = logging.getLogger(__name__)


NEVER = {"interval": "epoch", "monitor": "", "strict": False}  # for a scheduler that is stepped here


class Ratio(Metric):
    """A sum of totals over a sum of counts, over all batches and ranks."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor) -> None:
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        return self.total / self.count


def with_loss(score: Score, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """A score's metrics and the loss itself, as totals and counts."""
    count = score.loss.new_tensor(float(len(batch)))
    return {"loss_nats": (score.loss.detach() * count, count), **score.metrics}


def metric_name(split: Split, metric: str) -> str:
    """``val/bit_errors_per_sequence``, ``test_length_30/bit_errors_per_sequence``."""
    return f"{split.stream}/{metric}"


class MannModule(LightningModule):
    """Trains a model on a task and measures it.

    Args:
        model: from ``mannlab.model.assemble``.
        task: the task.
        config: the run's configuration; ``optimizer`` and ``scheduler`` are read here, and what makes
            the model and the task what they are goes into checkpoints as plain containers.

    Attributes:
        results: metric name to value, of the last evaluation of each split.
        position: index of the first training sample of the present step, over all ranks.
        last_loss: the last training loss, on the device.
        instruments: measure gradients and speed.
        texts: what tasks have to say of the last evaluation, by name (see ``Task.examine``).
        tuning: how this run steps; goes into checkpoints.
        retuned: in what that differs from the run that is resumed.
        resized: its memory holds more, or less, than that of the run that is resumed: states do not fit.
        began: when the run did, on the monotonic clock, as if it had not been interrupted.
    """

    def __init__(self, model: MANN, task: Task, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.tuning = tuning(config)
        self.retuned = Retuned(None, self.tuning)
        self.resized = False
        self.began = time.monotonic()
        self.model, self.task = model, task
        self._optimizer, self._scheduler = config["optimizer"], config.get("scheduler")
        # Their gradients travel as factors (see ``tables.gather``).
        ignored = {id(table.weight) for table in tables_of(model)}
        names = [name for name, parameter in self.named_parameters() if id(parameter) in ignored]
        self._ddp_params_and_buffers_to_ignore = names
        identity = {key: dict(config.get(key) or {}) for key in IDENTITY}
        self.save_hyperparameters({**identity, "mannlab": config.get("version", "")}, logger=False)
        self.results: dict[str, float] = {}
        self.texts: dict[str, str] = {}
        self.last_loss: Tensor | None = None
        self.instruments = Instruments(model)
        self.position = 0
        self._sums: dict[str, dict[str, Ratio]] = {}
        self._pending = 0
        self._batches = 0
        self._waiting: ReduceLROnPlateau | None = None
        self._random: list[dict[str, Tensor]] | None = None
        # Validation goes through its own texts in the middle of training's.
        self._carried = {"train": Carried(), "evaluation": Carried()}
        self._saved_state: list[list[Tensor]] | None = None
        self._before: Before | None = None

    @property
    def data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def _log_every(self) -> int:
        return max(1, self.trainer.log_every_n_steps)  # type: ignore[attr-defined]

    @property
    def objective(self) -> str:
        """Name of the main metric on the main validation split."""
        return metric_name(self.task.splits("val")[0], self.task.objective.metric)

    def forward(self, batch: Batch, trace: dict[str, list[Tensor]] | None = None) -> Any:
        """The model's logits; see ``MANN.forward``."""
        return self.model(batch.inputs, batch.valid, trace=trace)

    def _logits(self, batch: Batch, stage: str) -> Tensor:
        if not self.task.continuous:
            if self.task.asks_few:
                return self.model.answers(batch.inputs, batch.valid, batch.scored.bool())
            logits: Tensor = self(batch)
            return logits
        return self._carried[stage].run(self.model, batch)

    # ------------------------------------------------------------------ training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self._pending == 0:
            # Where gradients are not accumulated, nothing is saved in the middle of a step.
            self._before = self._now() if self.trainer.accumulate_grad_batches > 1 else None
        self.position = self.data.consumed + self._pending
        self._pending += len(batch) * self.trainer.world_size
        score = self.task.score(self._logits(batch, "train"), batch)
        self.last_loss = score.loss.detach()
        self.data.curriculum.note(score, batch, self.position)
        if (self.global_step + 1) % self._log_every == 0:
            self._log_training(score, batch)
        return score.loss

    def _log_training(self, score: Score, batch: Batch) -> None:
        named = with_loss(score, batch)
        sums = torch.stack(
            [part.detach().to(self.device).double() for pair in named.values() for part in pair]
        )
        totals, counts = self.trainer.strategy.reduce(sums, reduce_op="sum").reshape(-1, 2).unbind(1)
        means = dict(zip(named, (totals / counts).tolist(), strict=True))
        values = {f"train/{key}": value for key, value in (means | self.task.derive(means)).items()}
        level = self.data.curriculum.at(self.position)
        if level is not None:
            values["train/curriculum_level"] = float(level)
        values |= {
            f"memory/{key}{suffix}": value
            for memory, suffix in self.model.named_memories()
            for key, value in memory.metrics().items()
        }
        optimizer = self.trainer.optimizers[0]
        self.instruments.note(
            values
            | {
                "train/sequences": float(self.data.consumed + self._pending),
                "train/learning_rate": float(optimizer.param_groups[0]["lr"]),
            }
        )

    def write(self, values: dict[str, float], step: int) -> None:
        """To every logger, at an optimizer step (cheaper than ``self.log``, and no 'epoch' curve)."""
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        step = self.global_step + 1
        super().optimizer_step(*args, **kwargs)
        self.data.consumed += self._pending
        self._pending, self._before = 0, None
        if self.instruments.waiting:
            self.write(self.instruments.take(self.data.consumed, step), step)
        batch = self.data.batch_size * self.trainer.world_size
        self.data.curriculum.step(self.data.consumed, batch, self.trainer)
        self._batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def configure_model(self) -> None:
        divide(self.model, self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer()
        if not self._scheduler or not self._scheduler.get("_target_"):
            self.retuned.begin(optimizer)
            return optimizer
        for key in ("T_max", "total_steps"):
            steps = self._scheduler.get(key)
            require(
                not isinstance(steps, int) or steps >= 1,
                f"scheduler.{key}: {steps} is not allowed.",
                f"A curve needs an end: with trainer.max_steps=-1, give scheduler.{key} a number of steps.",
            )
        scheduler = instantiate(self._scheduler, "scheduler", optimizer)
        self.retuned.begin(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            # Lightning would step it after the checkpoint of a validation is written.
            self._waiting = scheduler
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **NEVER}}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """After each optimizer step. One that waits for a metric steps with validations."""
        if scheduler is not self._waiting:
            super().lr_scheduler_step(scheduler, metric)

    def _make_optimizer(self) -> Optimizer:
        tables = tables_of(self.model)
        if not tables:
            plain: Optimizer = instantiate(self._optimizer, "optimizer", self.parameters())
            refuse_sparse(plain, self.model)
            return plain
        precision = str(self.trainer.precision)
        require(
            not precision.startswith("16"),
            f"trainer.precision: {precision} is not allowed with memory.gradient=auto.",
            "Use trainer.precision=bf16-mixed, which needs no scaling, or memory.gradient=sparse or dense.",
        )
        apart = {id(table.weight) for table in tables}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        main = instantiate(self._optimizer, "optimizer", rest)
        return WithTables(main, RowAdam(tables, lr=main.param_groups[0]["lr"]))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.trainer.world_size > 1:
            for table in tables_of(self.model):
                gather(table, self.trainer.world_size)
        self.instruments.look(optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        whole = getattr(optimizer, "optimizer", optimizer)
        if not gradient_clip_val or not has_tables(self.model):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            clip_value(whole, float(gradient_clip_val))
        else:
            clip_norm(whole, float(gradient_clip_val))

    # ------------------------------------------------------------------ evaluation

    def on_validation_epoch_start(self) -> None:
        self.instruments.meter.pause()
        self._begin()

    def on_validation_end(self) -> None:
        # After those of callbacks: pictures are not training either.
        self.instruments.meter.go_on()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure("val", batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._report("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            loss = self.results[metric_name(self.task.splits("val")[0], "loss_nats")]
            for memory, _ in self.model.named_memories():
                memory.end_validation(loss)
            if self._waiting is not None:
                self._waiting.step(self.results[self.objective])

    def on_test_epoch_start(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sums = {}
        self._carried["evaluation"].forget()
        for memory, _ in self.model.named_memories():
            memory.begin_evaluation()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure("test", batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _measure(self, stage: str, batch: Batch, index: int) -> None:
        split = self.task.splits(stage)[index]
        ignored = IGNORED in batch.extra
        for memory, _ in self.model.named_memories():
            memory.observing = not ignored
        score = self.task.score(self._logits(batch, "evaluation"), batch)
        for metric, (total, count) in with_loss(score, batch).items():
            sums = self._sums.setdefault(split.stream, {})
            if metric not in sums:
                sums[metric] = Ratio().to(self.device)
            if not ignored:
                sums[metric].update(total.detach(), count.detach())

    def _report(self, stage: str) -> None:
        values: dict[str, float] = {}
        for stream, sums in self._sums.items():
            means = {metric: float(ratio.compute()) for metric, ratio in sums.items()}
            means |= self.task.derive(means)
            values |= {f"{stream}/{metric}": value for metric, value in means.items()}
        values |= {
            f"{stage}_memory/{key}{suffix}": value
            for memory, suffix in self.model.named_memories()
            for key, value in memory.evaluation_metrics().items()
        }
        if not self.trainer.sanity_checking:
            values |= self._examine(stage)
        self.results |= values
        if self.trainer.sanity_checking:
            return
        self.write(values, self.global_step)
        # Every rank holds the same sums: nothing to gather. For callbacks that monitor.
        self.log_dict({name: torch.tensor(value) for name, value in values.items()}, logger=False)

    def _examine(self, stage: str) -> dict[str, float]:
        """What the task finds when the model answers freely; every rank finds the same."""
        values: dict[str, float] = {}
        generate = Decoder(self.model, self.data.eval_batch_size)
        for split in self.task.splits(stage):
            if split.stream not in self._sums:
                continue
            with self.trainer.precision_plugin.forward_context():
                found = self.task.examine(generate, split, Draws(EVALUATION_SEED, split.stream))
            values |= {f"{split.stream}/{metric}": value for metric, value in found.metrics.items()}
            self.texts |= {f"{split.stream}/{title}": text for title, text in found.texts.items()}
        return values

    # ------------------------------------------------------------------ checkpoints

    def _now(self) -> Before:
        return Before(
            random_state(self.trainer.strategy.root_device),
            self._carried["train"].held(self.model) if self.task.continuous else [],
            {name: buffer.clone() for name, buffer in self.named_buffers()},
            None if self._waiting is None else deepcopy(self._waiting.state_dict()),
            [float(group["lr"]) for group in self.trainer.optimizers[0].param_groups],
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        before = self._before
        if before is not None:
            mark_unfinished(checkpoint, before)
        random = before.random if before else random_state(self.trainer.strategy.root_device)
        mark_step(checkpoint, self._batches, self.trainer, random)
        checkpoint["tuning"], checkpoint["seconds"] = self.tuning, time.monotonic() - self.began
        if self.task.fingerprint is not None:
            checkpoint["fingerprint"] = self.task.fingerprint
        if self.task.continuous:
            train = self._carried["train"]
            carried = before.carried if before else train.held(self.model)
            checkpoint["carried"] = train.save(carried, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_data(checkpoint, self.task, Path("The checkpoint"))
        begin_again(checkpoint)
        self.retuned.leave_out(checkpoint)
        self._random = checkpoint.get("random")
        self._saved_state = None if self.resized else checkpoint.get("carried")

    def on_train_start(self) -> None:
        if self.model.stepwise and self.trainer.is_global_zero:
            parts = (self.model.backend, self.model.controller, self.model.memory)
            precision = str(self.trainer.precision)
            log.info("%s", backend.describe(*parts, self.device, self.model.interface, precision))
        said = self.retuned.apply(self.trainer.optimizers[0], self.lr_schedulers(), self.global_step)
        if said and self.trainer.is_global_zero:
            log.info("%s", said)
        # Last of all: making loaders, models and sanity checks may have drawn numbers.
        if self._random is not None:
            restore_random(self._random, self.trainer.global_rank)
            self._batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
            self._random = None
        rank = self.trainer.global_rank
        self.instruments.meter.start(self.data.consumed, self.global_step)
        self._carried["train"].load(self._saved_state, self.model, self.data.batch_size, rank)
        self._saved_state = None
