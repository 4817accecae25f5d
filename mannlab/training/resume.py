"""What makes a resumed run continue exactly: loop counters at a step's end, and random states."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Before(NamedTuple):
    """From where a step begins, besides weights and what the optimizer makes of them.

    Attributes:
        random: this process's generators.
        carried: what the state of a continuous task's texts is made of.
        buffers: the module's, by name.
        schedule: the state of a schedule that steps with validations, or None, and
        rates: the learning rates that it has come to.
    """

    random: dict[str, Tensor]
    carried: list[Any]
    buffers: dict[str, Tensor]
    schedule: dict[str, Any] | None
    rates: list[float]


def mark_step(checkpoint: dict[str, Any], batches: int, trainer: Any, random: dict[str, Tensor]) -> None:
    """Make a checkpoint say "right after an optimizer step", whenever it was written.

    Lightning's loop counters differ with the hook that saves (after a batch, within a validation, at
    the end), and resume differently. One form for all resumes with the next step's batch.

    Args:
        checkpoint: from Lightning, changed here; gains ``random``, one random state per rank.
        batches: batches consumed by the optimizer steps so far.
        trainer: the trainer.
        random: the :func:`random_state` from which the next step begins.
    """
    loop = checkpoint["loops"]["fit_loop"]
    done = {"ready": batches, "started": batches, "processed": batches, "completed": max(0, batches - 1)}
    loop["epoch_loop.batch_progress"] |= {"total": done, "current": dict(done), "is_last_batch": False}
    loop["epoch_loop.val_loop.batch_progress"] = _zeros(loop["epoch_loop.val_loop.batch_progress"])
    epoch = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    loop["epoch_progress"] |= {"total": epoch, "current": dict(epoch)}
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = max(0, trainer.global_step - 1)
    checkpoint["random"] = gather_random(trainer, random)


def mark_unfinished(checkpoint: dict[str, Any], before: Before) -> None:
    """Note in a checkpoint from the middle of a step what :func:`begin_again` needs.

    Its weights stay as they were measured, running statistics of the step's batches included.
    """
    buffers = {name: kept for name, kept in before.buffers.items() if name in checkpoint["state_dict"]}
    checkpoint["unfinished"] = {"buffers": buffers, "schedule": before.schedule, "rates": before.rates}


def begin_again(checkpoint: dict[str, Any]) -> None:
    """Undo, in a checkpoint from the middle of a step, what the step and validations in it changed."""
    before = checkpoint.get("unfinished")
    if before is None:
        return
    # Of averaged weights, those that training has.
    checkpoint.get("current_model_state", checkpoint["state_dict"]).update(before["buffers"])
    if before["schedule"] is not None:
        checkpoint["lr_schedulers"] = [before["schedule"]]
        state = checkpoint["optimizer_states"][0]
        for group, rate in zip(state.get("main", state)["param_groups"], before["rates"], strict=True):
            group["lr"] = rate


def _zeros(progress: Any) -> Any:
    if isinstance(progress, dict):
        return {key: _zeros(value) for key, value in progress.items()}
    return False if isinstance(progress, bool) else 0


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of this process's random generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def gather_random(trainer: Any, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The :func:`random_state` of every rank, of which ``state`` is one; all ranks must call it."""
    if trainer.world_size == 1:
        return [state]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states


def restore_random(states: list[dict[str, Tensor]], rank: int) -> None:
    """Set this process's generators; a rank that the checkpoint does not know keeps its own."""
    if rank >= len(states):
        return
    torch.set_rng_state(states[rank]["cpu"].cpu())
    if "cuda" in states[rank] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[rank]["cuda"].cpu())
