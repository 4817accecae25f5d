"""What makes a resumed run continue exactly: loop counters at a step's end, and random states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
