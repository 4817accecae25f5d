"""LSTM controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts import Controller, hold
from mannlab.controller._recurrent import first_state, lacks_bfloat16, layer_weights, run_padded
from mannlab.errors import at_least_one
from mannlab.kernels import deferred, lstm
from mannlab.kernels.deferred import Shared
from mannlab.registry import register

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import ControllerCell


class LSTMState(NamedTuple):
    """Attributes: ``h[B, layers, hidden]`` and ``c[B, layers, hidden]``; ``shared``, each layer's weights
    while steps of one sequence share the making of their gradient."""

    h: Tensor
    c: Tensor
    shared: list[Shared] | None = None


@register("controller", "lstm")
class LSTM(Controller[LSTMState]):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), the usual controller of an NTM.

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
        self.lstm = nn.LSTM(input_size, hidden, layers, batch_first=True)
        self.first_h = first_state(layers, hidden)
        self.first_c = first_state(layers, hidden)

    def init_state(self, batch: int) -> LSTMState:
        return LSTMState(self.first_h.expand(batch, -1, -1), self.first_c.expand(batch, -1, -1))

    def forward(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        hs, cs = [], []
        shared = self._shared(state)
        # Far cheaper for one step than the module, which is made for whole sequences.
        every: Sequence[Any] = shared or layer_weights(self.lstm)
        for layer, weights in enumerate(every):
            before = state.h[:, layer], state.c[:, layer]
            if isinstance(weights, Shared):
                x, c = lstm.step(x, *before, weights)
            else:
                x, c = torch.lstm_cell(x, before, *weights)
            hs.append(x)
            cs.append(c)
        if len(hs) == 1:
            return x, LSTMState(hs[0].unsqueeze(1), cs[0].unsqueeze(1), shared)
        return x, LSTMState(torch.stack(hs, 1), torch.stack(cs, 1), shared)

    def _shared(self, state: LSTMState) -> list[Shared] | None:
        if state.shared is not None and state.shared[0].weights[0] is self.lstm.weight_ih_l0:
            return state.shared
        if not deferred.pays(*self.lstm.parameters()):
            return None
        orders = [(w_x, b_x, w_h, b_h) for w_x, w_h, b_x, b_h in layer_weights(self.lstm)]
        return [Shared(*order) for order in orders]

    def detach(self, state: LSTMState) -> LSTMState:
        return LSTMState(state.h.detach(), state.c.detach())

    def fused(
        self, state: LSTMState
    ) -> tuple[ControllerCell, Callable[[Sequence[Tensor]], LSTMState]] | None:
        from mannlab.kernels.fused.controllers import LSTMLayer, Stack

        every = [(w_x, b_x, w_h, b_h) for w_x, w_h, b_x, b_h in layer_weights(self.lstm)]
        states = list(zip(state.h.unbind(1), state.c.unbind(1), strict=True))
        cell = Stack([LSTMLayer() for _ in every], every, states)
        return cell, lambda last: LSTMState(torch.stack(last[::2], 1), torch.stack(last[1::2], 1))

    def sequence(self, x: Tensor, state: LSTMState, valid: Tensor | None = None) -> tuple[Tensor, LSTMState]:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and lacks_bfloat16():
            with torch.autocast("cpu", enabled=False):
                return self._whole(x.to(self.first_h), state, valid)
        return self._whole(x, state, valid)

    def _whole(self, x: Tensor, state: LSTMState, valid: Tensor | None) -> tuple[Tensor, LSTMState]:
        first = state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous()
        if valid is None:
            out, last = self.lstm(x, first)
        else:
            out, last = run_padded(valid, x, lambda packed: self.lstm(packed, first))
        new = LSTMState(last[0].transpose(0, 1), last[1].transpose(0, 1))
        return out, new if valid is None else hold(valid[:, 0], new, state._replace(shared=None))
