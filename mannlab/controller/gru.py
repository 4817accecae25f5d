"""GRU controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts import Controller, hold
from mannlab.controller._recurrent import first_state, layer_weights, run_padded
from mannlab.errors import at_least_one
from mannlab.registry import register

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import ControllerCell


class GRUState(NamedTuple):
    """Attributes: ``h[B, layers, hidden]``."""

    h: Tensor


@register("controller", "gru")
class GRU(Controller[GRUState]):
    """Gated recurrent units (Cho et al. 2014).

    Args:
        input_size: width of what comes in at each step.
        hidden: units of each layer.
        layers: number of layers.

    Raises:
        ConfigError: a size below 1.
    """

    def __init__(self, input_size: int, *, hidden: int = 100, layers: int = 1) -> None:
        super().__init__()
        at_least_one("controller", hidden=hidden, layers=layers)
        self.output_size = hidden
        self.gru = nn.GRU(input_size, hidden, layers, batch_first=True)
        self.first_h = first_state(layers, hidden)

    def init_state(self, batch: int) -> GRUState:
        return GRUState(self.first_h.expand(batch, -1, -1))

    def forward(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        hs = []
        for layer, weights in enumerate(layer_weights(self.gru)):
            x = torch.gru_cell(x, state.h[:, layer], *weights)
            hs.append(x)
        return x, GRUState(torch.stack(hs, 1))

    def fused(self, state: GRUState) -> tuple[ControllerCell, Callable[[Sequence[Tensor]], GRUState]] | None:
        from mannlab.kernels.fused.controllers import GRULayer, Stack

        every = [(w_x, b_x, w_h, b_h) for w_x, w_h, b_x, b_h in layer_weights(self.gru)]
        cell = Stack([GRULayer() for _ in every], every, [(h,) for h in state.h.unbind(1)])
        return cell, lambda last: GRUState(torch.stack(list(last), 1))

    def sequence(self, x: Tensor, state: GRUState, valid: Tensor | None = None) -> tuple[Tensor, GRUState]:
        first = state.h.transpose(0, 1).contiguous()
        if valid is None:
            out, last = self.gru(x, first)
        else:
            out, last = run_padded(valid, x, lambda packed: self.gru(packed, first))
        new = GRUState(last.transpose(0, 1))
        return out, new if valid is None else hold(valid[:, 0], new, state)
