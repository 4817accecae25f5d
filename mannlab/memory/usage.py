"""How evenly a memory of very many values is used."""

from __future__ import annotations

import torch
from torch import Tensor

SHARES = (50, 90, 99)  # percent of the mass


class Usage:
    """Counts which values are read, and with what weight.

    Args:
        slots: N.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._mass: Tensor | None = None
        self._reads: Tensor | None = None

    def add(self, rows: Tensor, weights: Tensor) -> None:
        """Note reads: ``rows`` (int64) and ``weights``, of any one shape."""
        if self._mass is None or self._reads is None or self._mass.device != rows.device:
            # Counting begun in inference mode may go on outside.
            with torch.inference_mode(False):
                self._mass = torch.zeros(self.slots, dtype=torch.float32, device=rows.device)
                self._reads = torch.zeros_like(self._mass)
        flat = rows.flatten()
        self._mass.index_add_(0, flat, weights.detach().flatten().abs().float())
        self._reads.index_add_(0, flat, torch.ones_like(flat, dtype=torch.float32))

    def reset(self) -> None:
        """Count from zero."""
        self._mass = self._reads = None

    def take(self) -> Tensor | None:
        """Reads and mass of every value since the last call, ``[2, N]``, over all ranks; None without any."""
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self._mass is None or self._reads is None:
            if not shared:
                return None
            # Other ranks may have counted: all must meet.
            on_gpu = torch.distributed.get_backend() == "nccl"
            found = torch.zeros(2, self.slots, device="cuda" if on_gpu else "cpu")
        else:
            found = torch.stack([self._reads, self._mass])
        self.reset()
        if shared:
            torch.distributed.all_reduce(found)
        return found if bool(found[0].any()) else None


def statistics(reads: Tensor, mass: Tensor) -> dict[str, float]:
    """What Lample et al. 2019 watch: how many values are used, and how evenly.

    Args:
        reads: how often each value was read, ``[N]``.
        mass: the sum of its weights, ``[N]``.

    Returns:
        ``used_percent`` of the values; ``kl_reads_nats`` and ``kl_nats``, how far reads and mass are from
        uniform (``log N + sum p log p``); ``gini`` of the mass, 0 if all are equal; ``dead_slots``, values
        that nobody read; ``slots_holding_50_percent`` and so on, the fewest values that hold so much of it.
    """
    slots = len(reads)
    found = {
        "used_percent": 100 * float((reads > 0).double().mean()),
        "dead_slots": float((reads == 0).sum()),
        "kl_reads_nats": _from_uniform(reads),
        "kl_nats": _from_uniform(mass),
    }
    ordered = mass.double().sort().values
    total = ordered.sum()
    ranks = torch.arange(1, slots + 1, dtype=torch.float64, device=mass.device)
    if total > 0:
        found["gini"] = float((2 * ranks - slots - 1) @ ordered / (slots * total))
        held = ordered.flip(0).cumsum(0) / total
        for share in SHARES:
            found[f"slots_holding_{share}_percent"] = float((held < share / 100 - 1e-12).sum() + 1)
    return found


def _from_uniform(counts: Tensor) -> float:
    total = counts.double().sum()
    if total == 0:
        return 0.0
    share = counts.double() / total
    return float(torch.tensor(float(len(counts))).double().log() + torch.xlogy(share, share).sum().cpu())
