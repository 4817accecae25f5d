"""Optimizers that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mannlab.errors import require


class GravesRMSprop(Optimizer):
    """RMSProp as in Graves 2013, "Generating sequences with recurrent neural networks", eq. 38-41.

    With gradient g: ``n = a n + (1-a) g^2``, ``m = a m + (1-a) g``,
    ``d = b d - lr g / sqrt(n - m^2 + eps)``, ``p = p + d``. Unlike ``torch.optim.RMSprop(centered=True)``
    it has eps inside the root, and the learning rate inside the momentum.

    Args:
        params: what to optimize.
        lr: learning rate.
        decay: a, of both running means.
        momentum: b.
        eps: added under the root.

    Raises:
        ConfigError: an impossible value.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        decay: float = 0.95,
        momentum: float = 0.9,
        eps: float = 1e-4,
    ) -> None:
        for key, value in (("lr", lr), ("eps", eps)):
            require(value > 0, f"optimizer.{key}: {value} is not allowed.", "It must be above 0.")
        for key, value in (("decay", decay), ("momentum", momentum)):
            require(0 <= value < 1, f"optimizer.{key}: {value} is not allowed.", "It must be in [0, 1).")
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {key: torch.zeros_like(p) for key in ("square", "mean", "delta")}
        grads = [p.grad for p in params if p.grad is not None]
        square, mean, delta = ([self.state[p][key] for p in params] for key in ("square", "mean", "delta"))
        a = group["decay"]
        torch._foreach_mul_(square, a)
        torch._foreach_addcmul_(square, grads, grads, 1 - a)
        torch._foreach_lerp_(mean, grads, 1 - a)
        root = torch._foreach_addcmul(square, mean, mean, -1)
        torch._foreach_clamp_min_(root, 0)  # rounding may take a variance below 0 by more than eps
        torch._foreach_add_(root, group["eps"])
        torch._foreach_sqrt_(root)
        torch._foreach_mul_(delta, group["momentum"])
        torch._foreach_addcdiv_(delta, grads, root, -group["lr"])
        torch._foreach_add_(params, delta)
