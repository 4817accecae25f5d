"""Stop at the first loss that is not finite, and say where it began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from mannlab.contracts import Batch
from mannlab.draws import Draws
from mannlab.errors import MannlabError
from mannlab.training.callbacks.checkpoints import go_on


class NotFinite(MannlabError):
    """The loss became NaN or infinite."""


class FiniteGuard(Callback):
    """Stop when the loss is NaN or infinite; name the step, the samples and the first culprit.

    On a CPU every step is checked before its update. On other devices a flag is kept there and read
    when metrics are logged, since asking at every step would hold up the device.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._first: Tensor | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if loss.device.type == "cpu":
            bad = not torch.isfinite(loss)
            if agreed(trainer, bad):
                self._fail(trainer, pl_module, pl_module.position if bad else -1)
            return
        if self._first is None:
            self._first = torch.full((), -1, dtype=torch.int64, device=loss.device)
        found = ~torch.isfinite(loss.detach()) & (self._first < 0)
        self._first = torch.where(found, pl_module.position, self._first)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if trainer.global_step % max(1, trainer.log_every_n_steps) == 0:
            self._look(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._look(trainer, pl_module)

    def _look(self, trainer: Any, pl_module: Any) -> None:
        if self._first is None:
            return
        position = int(self._first)
        if agreed(trainer, position >= 0):
            self._fail(trainer, pl_module, position, late=True)

    def _fail(self, trainer: Any, pl_module: Any, position: int, late: bool = False) -> None:
        what = self._what(trainer, pl_module, position, late) if position >= 0 else ""
        if trainer.world_size > 1:
            found: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, what)
            what = next(item for item in found if item)
        raise NotFinite(
            what,
            f"Try a lower optimizer.lr or a tighter trainer.gradient_clip_val{go_on(trainer)}.",
        )

    def _what(self, trainer: Any, pl_module: Any, position: int, late: bool) -> str:
        data = trainer.datamodule
        start = position + trainer.global_rank * data.batch_size
        per_step = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        step = trainer.global_step + (0 if late else 1) - (pl_module.position - position) // per_step
        if late or self._batch is None:
            # The weights have been updated with it since: only the samples can still be looked at.
            where = (
                self._samples(data, start) or "train there with trainer=cpu to see which module it begins in"
            )
        else:
            where = culprit(pl_module, self._batch)
            if where.startswith("parameter") and start >= per_step:
                before = start - per_step
                why = self._samples(data, before)
                where += f", from samples {before} to {before + data.batch_size - 1}{why and ': '}{why}"
        return (
            f"The loss is not finite at step {step}: {where}.\n"
            f"Samples {start} to {start + data.batch_size - 1} of split 'train', seed {data.seed}."
        )

    @staticmethod
    def _samples(data: Any, start: int) -> str:
        split = data.task.splits("train")[0]
        return bad_channel(data.task.batch(split, Draws(data.seed, split.stream), start, data.batch_size))


def agreed(trainer: Any, bad: bool) -> bool:
    """Whether any rank found something bad; all ranks must ask."""
    if trainer.world_size == 1:
        return bad
    return bool(trainer.strategy.reduce_boolean_decision(bad, all=False))


def bad_channel(batch: Batch) -> str:
    """The first input channel with something that is not finite, or nothing."""
    for channel, tensor in batch.inputs.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f"input channel '{channel}' holds {_spell(tensor)}"
    return ""


def culprit(pl_module: Any, batch: Batch) -> str:
    """The first thing that is not finite: a parameter, an input channel, or a module at a time step."""
    for name, parameter in pl_module.named_parameters():
        if not torch.isfinite(parameter).all():
            name = name.removeprefix("model.")
            return f"parameter '{name}' came out of the update before with {_spell(parameter)}"
    if channel := bad_channel(batch):
        return channel
    found: list[str] = []
    model = pl_module.model
    # A whole sequence as one node has no steps to watch.
    before, model.backend = model.backend, "eager"
    try:
        with torch.no_grad(), watched(model, found):
            logits = pl_module(batch)
    finally:
        model.backend = before
    if found:
        return found[0]
    if not torch.isfinite(logits).all():
        return f"the model's output holds {_spell(logits)}"
    return "the model's output is finite, its score is not"


def _spell(tensor: Tensor) -> str:
    return "NaN" if torch.isnan(tensor).any() else "infinity"


@contextmanager
def watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Note in ``found`` the first module whose output is not finite, and its time step.

    Wraps ``forward`` and ``step`` themselves, since a model steps its parts without module hooks.
    """
    changed: list[tuple[nn.Module, str]] = []
    for name, module in model.named_modules():
        if not name:
            continue
        for method in ("forward", "step"):
            inner = getattr(module, method, None)
            if callable(inner):
                object.__setattr__(module, method, _watch(inner, name, found))
                changed.append((module, method))
    try:
        yield
    finally:
        for module, method in changed:
            module.__dict__.pop(method, None)


def _watch(inner: Any, name: str, found: list[str]) -> Any:
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        mine, calls = calls, calls + 1
        result = inner(*args, **kwargs)
        if not found:
            for tensor in tensors(result):
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    found.append(f"'{name}' gives {_spell(tensor)} at time step {mine} of the sequence")
                    break
        return result

    return call


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
