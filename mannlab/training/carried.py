"""The model's state between the batches of a continuous task."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from mannlab.contracts import Batch
from mannlab.model import MANN
from mannlab.model.unroll import RunState

log = logging.getLogger(__name__)


class Carried:
    """Runs a model on batches that go on where those before ended (see ``Task.continuous``).

    Gradients do not flow from a batch into the one before.
    """

    def __init__(self) -> None:
        self._state: RunState | None = None

    def forget(self) -> None:
        """The next batch begins anew."""
        self._state = None

    def run(self, model: MANN, batch: Batch) -> Tensor:
        """The model's logits; call it after the backward pass of the batch before."""
        before, self._state = self._state, None
        # What comes first of a text, or was left without a state by a resume, starts from nothing.
        state = model.detach(before) if before is not None and batch.continues else None
        logits, self._state = model.run(batch.inputs, batch.valid, state=state)
        return logits

    def held(self, model: MANN) -> list[Any]:
        """What the state is made of, cut off from the graph; call it as :meth:`run`."""
        self._state = None if self._state is None else model.detach(self._state)
        return _leaves(self._state)

    def save(self, leaves: list[Any], trainer: Any) -> list[list[Tensor]] | None:
        """What every rank :meth:`held`, as plain tensors; None if there is nothing, or something else."""
        plain = all(isinstance(leaf, Tensor) for leaf in leaves)
        mine = [leaf.cpu() for leaf in leaves] if plain else []
        every: list[Any] = [mine]
        if trainer.world_size > 1:
            every = [None] * trainer.world_size
            torch.distributed.all_gather_object(every, mine)
        return every if all(every) else None

    def load(self, saved: list[list[Tensor]] | None, model: MANN, batch: int, rank: int) -> None:
        """Go on from what :meth:`save` made, for ``batch`` sequences; from nothing where it does not fit."""
        self._state = None
        if saved is None:
            return
        like = next(model.parameters())
        leaves, structure = tree_flatten(model.init_state(batch, like))
        wanted = sum(leaf is not None for leaf in leaves)
        if rank >= len(saved) or len(saved[rank]) != wanted or any(len(t) != batch for t in saved[rank]):
            log.warning(
                "The states of %d texts were saved, not of %d: all begin anew.", len(saved[0][0]), batch
            )
            return
        tensors = iter([tensor.to(like.device) for tensor in saved[rank]])
        self._state = tree_unflatten([leaf if leaf is None else next(tensors) for leaf in leaves], structure)


def _leaves(state: RunState | None) -> list[Any]:
    return [leaf for leaf in tree_flatten(state)[0] if leaf is not None]
