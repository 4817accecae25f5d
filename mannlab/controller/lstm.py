"""LSTM controller."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mannlab.contracts import Controller, hold
from mannlab.controller._recurrent import check_sizes, first_state, layer_weights, run_padded
from mannlab.registry import register


class LSTMState(NamedTuple):
    """Attributes: ``h[B, layers, hidden]`` and ``c[B, layers, hidden]``."""

    h: Tensor
    c: Tensor


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
        check_sizes(hidden=hidden, layers=layers)
        self.output_size = hidden
        self.lstm = nn.LSTM(input_size, hidden, layers, batch_first=True)
        self.first_h = first_state(layers, hidden)
        self.first_c = first_state(layers, hidden)

    def init_state(self, batch: int) -> LSTMState:
        return LSTMState(self.first_h.expand(batch, -1, -1), self.first_c.expand(batch, -1, -1))

    def forward(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        hs, cs = [], []
        # Far cheaper for one step than the module, which is made for whole sequences.
        for layer, weights in enumerate(layer_weights(self.lstm)):
            x, c = torch.lstm_cell(x, (state.h[:, layer], state.c[:, layer]), *weights)
            hs.append(x)
            cs.append(c)
        return x, LSTMState(torch.stack(hs, 1), torch.stack(cs, 1))

    def sequence(self, x: Tensor, state: LSTMState, valid: Tensor | None = None) -> tuple[Tensor, LSTMState]:
        first = tuple(part.transpose(0, 1).contiguous() for part in state)
        if valid is None:
            out, last = self.lstm(x, first)
        else:
            out, last = run_padded(valid, x, lambda packed: self.lstm(packed, first))
        new = LSTMState(*(part.transpose(0, 1) for part in last))
        return out, new if valid is None else hold(valid[:, 0], new, state)
