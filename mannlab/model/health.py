"""Whether a memory works: how sharply its heads look, how much of it they use, what its gates say."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mannlab.contracts import Heads, Memory, Vitals

NOWHERE = 1e-6  # a head with less weight than this in all looks at nothing


class Health:
    """Means over what a model's memories show of their steps (see ``Memory.vitals``); a watch.

    Steps are looked at as they come and then forgotten, so that many take no more room than few.
    Of each kind of head, in percent:

    - ``sharpness``: the largest weight of a head, mean over heads, steps and sequences.
    - ``entropy``: of a head's weights, scaled to sum to 1, as a share of log N: 100 looks everywhere alike,
      0 at one slot alone. Heads that look at nothing are left out.
    - ``slots_used``: the exponential of the entropy of a sequence's weights, all steps and heads together,
      as a share of N: n slots used alike are n of N.

    Gauges are means over everything.
    """

    def __init__(self) -> None:
        self._tallies: dict[int, _Tally] = {}

    def of(self, memory: Memory[Any]) -> dict[str, float]:
        """What was found of a memory, by name with its unit; empty if it shows nothing."""
        tally = self._tallies.get(id(memory))
        return tally.means() if tally else {}

    # ------------------------------------------------------------------ as a watch

    def step(
        self,
        memory: Memory[Any],
        interface: Tensor | None,
        state: Any,
        valid: Tensor | None,
        times: int = 1,
    ) -> None:
        """See :class:`mannlab.model.watch.Watch`."""
        if interface is not None:
            self._tally(memory).add(memory.vitals(interface, state), valid)

    def sequence(self, memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> None:
        """See :class:`mannlab.model.watch.Watch`."""
        at_once = memory.vitals_sequence(interface, state, valid)
        if at_once is not None:
            self._tally(memory).add(at_once, valid)
            return
        for t, said in enumerate(interface.unbind(1) if _shows(memory) else ()):
            here = None if valid is None else valid[:, t]
            _, state = memory.step(said, state, here)
            self.step(memory, said, state, here)

    def _tally(self, memory: Memory[Any]) -> _Tally:
        return self._tallies.setdefault(id(memory), _Tally())


def _shows(memory: Memory[Any]) -> bool:
    kind = type(memory)
    return any(getattr(kind, name) is not getattr(Memory, name) for name in ("vitals", "trace", "gauges"))


class _Tally:
    """Sums of one memory."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._used: dict[str, Tensor] = {}

    def add(self, vitals: Vitals, valid: Tensor | None) -> None:
        """Count steps, ``[B]`` or ``[B, T]``, where ``valid`` is 1."""
        for kind, heads in vitals.heads.items():
            self._look(kind, heads, valid)
        for name, values in vitals.gauges.items():
            self._mean(name, values.detach(), _real(values, valid))

    def _look(self, kind: str, heads: Heads, valid: Tensor | None) -> None:
        weights = merged(heads).detach()
        mass = weights.sum(-1)
        real = _real(mass, valid)
        self._mean(f"{kind}_sharpness", weights.amax(-1), real)
        shares = weights / mass.clamp_min(NOWHERE).unsqueeze(-1)
        entropy = -torch.xlogy(shares, shares).sum(-1) / math.log(max(heads.slots, 2))
        self._mean(f"{kind}_entropy", entropy, real * (mass > NOWHERE))
        counted = (weights * real.unsqueeze(-1)).flatten(1)
        used = self._used.setdefault(kind, weights.new_zeros(len(weights), 0))
        if used.shape[1] < heads.slots:  # a memory may grow
            used = torch.cat([used, used.new_zeros(len(used), heads.slots - used.shape[1])], 1)
        if heads.rows is None:
            used[:, : heads.slots] += counted.unflatten(1, (-1, heads.slots)).sum(1)
        else:
            used.scatter_add_(1, heads.rows.flatten(1), counted)
        self._used[kind] = used

    def _mean(self, name: str, values: Tensor, real: Tensor) -> None:
        total, count = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (total + (values * real).sum(), count + real.expand_as(values).sum())

    def means(self) -> dict[str, float]:
        found = {name: total / count for name, (total, count) in self._sums.items()}
        for kind, used in self._used.items():
            shares = used / used.sum(1, keepdim=True).clamp_min(NOWHERE)
            entropy = -torch.xlogy(shares, shares).sum(1)
            looked = used.sum(1) > NOWHERE
            found[f"{kind}_slots_used"] = (entropy.exp() * looked).mean() / used.shape[1]
        # One wait for the device for all of them.
        values = torch.stack([value.double().cpu() for value in found.values()]) if found else torch.zeros(0)
        return {
            f"{name}_percent": 100 * value
            for name, value in zip(found, values.tolist(), strict=True)
            if not math.isnan(value)
        }


def _real(values: Tensor, valid: Tensor | None) -> Tensor:
    """1 where a value counts; broadcasts against ``values``, which begin with the dimensions of ``valid``."""
    if valid is None:
        return torch.ones_like(values)
    return valid.to(values).reshape(*valid.shape, *(1,) * (values.dim() - valid.dim())).expand_as(values)


def merged(heads: Heads) -> Tensor:
    """Weights in which no row stands twice: its first place has the sum, the others 0."""
    if heads.rows is None:
        return heads.weights
    same = heads.rows.unsqueeze(-1) == heads.rows.unsqueeze(-2)
    again = same.tril(-1).any(-1)
    total = (same * heads.weights.unsqueeze(-2)).sum(-1)
    return total.masked_fill(again, 0.0)
