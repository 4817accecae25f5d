"""Controllers in a fused sequence: stacks of layers, of which the first also hears the memory's reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mannlab.kernels.fused import compiled
from mannlab.kernels.fused.buffers import History
from mannlab.kernels.fused.cells import ControllerCell, Plan


class Layer(ABC):
    """One layer, for one sequence. ``size`` is C, its width; B, T: batch and steps.

    Attributes:
        weight_count: how many tensors of weights it has: of its input first.
        low: gradient of what it makes of its input, ``[T, B, G]``, once backward has run.
    """

    weight_count: int
    states: int
    gate_count: int
    low: Tensor

    @abstractmethod
    def begin(self, plan: Plan, weights: Sequence[Tensor], state: Sequence[Tensor], raw: Tensor) -> Tensor:
        """Make room; ``raw[T, B, C]`` is to be filled. Returns ``[T, B, G]``, where the input's part goes."""

    @abstractmethod
    def forward(self, t: int) -> None:
        """Step t; the input's part is there."""

    @abstractmethod
    def last(self) -> list[Tensor]: ...

    @abstractmethod
    def begin_backward(self, on_last: Sequence[Tensor | None]) -> None: ...

    @abstractmethod
    def backward(self, t: int, on_raw: Tensor) -> None:
        """Fill ``low[t]``."""

    @abstractmethod
    def end_backward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the state before the first step, and of the weights beyond those of the input."""


def _zeros_or(given: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if given is None else given.clone(memory_format=torch.contiguous_format)


class LSTMLayer(Layer):
    """Weights: ``w_x[4 C, I], b_x, w_h[4 C, C], b_h``; state: h, c."""

    weight_count, states, gate_count = 4, 2, 4

    def begin(self, plan: Plan, weights: Sequence[Tensor], state: Sequence[Tensor], raw: Tensor) -> Tensor:
        _, _, w_h, self.b_h = weights
        self.plan, self.w_h, self.back = plan, w_h, w_h.t()
        steps, batch, size = raw.shape
        shapes = {
            "gates": (steps, batch, 4 * size),
            "cells": (steps + 1, batch, size),
            "squashed": (steps, batch, size),
            "states": (steps + 1, batch, size),
        }
        self.history = History(shapes, plan.dtype)
        room, arrays = self.history.tensors, self.history.arrays
        room["states"][0], room["cells"][0] = state
        self._gates, self._states = room["gates"].unbind(0), room["states"].unbind(0)
        self._kept = arrays["gates"], arrays["cells"], arrays["squashed"]
        self._out = raw.detach().numpy(), arrays["states"]
        return room["gates"]

    def forward(self, t: int) -> None:
        self._gates[t].addmm_(self._states[t], self.back)
        compiled.lstm_forward(t, self.plan.valid, *self._kept, *self._out)

    def last(self) -> list[Tensor]:
        return [self._states[-1].clone(), self.history.tensors["cells"][-1].clone()]

    def begin_backward(self, on_last: Sequence[Tensor | None]) -> None:
        self.low = torch.empty_like(self.history.tensors["gates"])
        self._lows = self.low.unbind(0)
        self._on_h, self._on_c = (_zeros_or(given, self._states[0]) for given in on_last)
        self._ons = self._on_h.numpy(), self._on_c.numpy(), self.low.numpy()

    def backward(self, t: int, on_raw: Tensor) -> None:
        compiled.lstm_backward(t, self.plan.valid, *self._kept, on_raw.numpy(), *self._ons)
        self._on_h.addmm_(self._lows[t], self.w_h)

    def end_backward(self) -> tuple[list[Tensor], list[Tensor]]:
        flat = self.low.flatten(0, 1)
        before = self.history.tensors["states"][:-1].flatten(0, 1)
        return [self._on_h, self._on_c], [flat.t() @ before, flat.sum(0)]


class GRULayer(Layer):
    """Weights: ``w_x[3 C, I], b_x, w_h[3 C, C], b_h``; state: h."""

    weight_count, states, gate_count = 4, 1, 3

    def begin(self, plan: Plan, weights: Sequence[Tensor], state: Sequence[Tensor], raw: Tensor) -> Tensor:
        _, _, self.w_h, self.b_h = weights
        self.plan, self.back = plan, self.w_h.t()
        steps, batch, size = raw.shape
        shapes = {
            "gates": (steps, batch, 3 * size),
            "own": (steps, batch, 3 * size),
            "states": (steps + 1, batch, size),
        }
        self.history = History(shapes, plan.dtype)
        room, arrays = self.history.tensors, self.history.arrays
        room["states"][0] = state[0]
        self._own, self._states = room["own"].unbind(0), room["states"].unbind(0)
        self._kept = arrays["gates"], arrays["own"]
        self._raw, self._carried = raw.detach().numpy(), arrays["states"]
        return room["gates"]

    def forward(self, t: int) -> None:
        torch.addmm(self.b_h, self._states[t], self.back, out=self._own[t])
        compiled.gru_forward(t, self.plan.valid, *self._kept, self._raw, self._carried)

    def last(self) -> list[Tensor]:
        return [self._states[-1].clone()]

    def begin_backward(self, on_last: Sequence[Tensor | None]) -> None:
        self.low, self._high = (torch.empty_like(self.history.tensors["gates"]) for _ in range(2))
        self._highs = self._high.unbind(0)
        self._on_h = _zeros_or(on_last[0], self._states[0])
        self._ons = self._on_h.numpy(), self.low.numpy(), self._high.numpy()

    def backward(self, t: int, on_raw: Tensor) -> None:
        compiled.gru_backward(t, self.plan.valid, *self._kept, self._carried, on_raw.numpy(), *self._ons)
        self._on_h.addmm_(self._highs[t], self.w_h)

    def end_backward(self) -> tuple[list[Tensor], list[Tensor]]:
        flat = self._high.flatten(0, 1)
        before = self.history.tensors["states"][:-1].flatten(0, 1)
        return [self._on_h], [flat.t() @ before, flat.sum(0)]


class Activation(NamedTuple):
    """A function and its gradient, ``(on_output, before, after)`` to that of what came in."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


_aten = torch.ops.aten
ACTIVATIONS = {
    "tanh": Activation(torch.tanh, lambda on, before, after: _aten.tanh_backward(on, after)),
    "relu": Activation(torch.relu, lambda on, before, after: _aten.threshold_backward(on, after, 0)),
    "gelu": Activation(_aten.gelu, lambda on, before, after: _aten.gelu_backward(on, before)),
}


class PlainLayer(Layer):
    """A linear layer and an activation: ``w[C, I], b``; no state.

    Args:
        activation: a key of ``ACTIVATIONS``.
    """

    weight_count, states, gate_count = 2, 0, 1

    def __init__(self, activation: str) -> None:
        self.activation = ACTIVATIONS[activation]

    def begin(self, plan: Plan, weights: Sequence[Tensor], state: Sequence[Tensor], raw: Tensor) -> Tensor:
        self.history = History({"before": tuple(raw.shape)}, plan.dtype)
        self._before, self._raw = self.history.tensors["before"].unbind(0), raw.detach().unbind(0)
        return self.history.tensors["before"]

    def forward(self, t: int) -> None:
        self._raw[t].copy_(self.activation.forward(self._before[t]))

    def last(self) -> list[Tensor]:
        return []

    def begin_backward(self, on_last: Sequence[Tensor | None]) -> None:
        self.low = torch.empty_like(self.history.tensors["before"])
        self._lows = self.low.unbind(0)

    def backward(self, t: int, on_raw: Tensor) -> None:
        self._lows[t].copy_(self.activation.backward(on_raw, self._before[t], self._raw[t]))

    def end_backward(self) -> tuple[list[Tensor], list[Tensor]]:
        return [], []


class Stack(ControllerCell):
    """Layers above each other.

    Args:
        layers: from the lowest.
        weights: of each layer, those of its input (weight, bias) first.
        state: of each layer, ``[B, C]`` each.
    """

    def __init__(
        self, layers: Sequence[Layer], weights: Sequence[Sequence[Tensor]], state: Sequence[Sequence[Tensor]]
    ) -> None:
        self.layers = layers
        self.weights = tuple(tensor for of_layer in weights for tensor in of_layer)
        self.state = tuple(tensor for of_layer in state for tensor in of_layer)

    def begin(
        self, plan: Plan, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], hidden: Tensor
    ) -> None:
        self.x, self.entered = x, x.shape[2]
        steps, batch = plan.steps, plan.batch
        self.given = [list(part) for part in _split(weights, [layer.weight_count for layer in self.layers])]
        states = _split(state, [layer.states for layer in self.layers])
        self.raw, self._into, self._across = [], [], []
        self.rooms = []
        for n, layer in enumerate(self.layers):
            top = n == len(self.layers) - 1
            weight, bias = self.given[n][:2]
            size = weight.shape[0] // layer.gate_count
            if top:
                raw = hidden
            else:
                room = History({"raw": (steps, batch, size)}, plan.dtype)
                self.rooms.append(room)
                raw = room.tensors["raw"]
            into = layer.begin(plan, self.given[n], states[n], raw)
            # LSTM biases come in pairs and only their sum counts; a GRU's do not add up.
            total = bias + self.given[n][3] if isinstance(layer, LSTMLayer) else bias
            if n == 0:
                torch.addmm(
                    total, x.flatten(0, 1), weight[:, : self.entered].t(), out=into.view(-1, into.shape[2])
                )
                across = weight[:, self.entered :].t().contiguous()
            else:
                into.copy_(total.expand_as(into))
                across = weight.t()
            self.raw.append(raw.detach())
            self._into.append(into.unbind(0))
            self._across.append(across)
        self._raws = [raw.unbind(0) for raw in self.raw]

    def forward(self, t: int, reads: Tensor) -> None:
        low = reads
        for layer, into, across, raw in zip(self.layers, self._into, self._across, self._raws, strict=True):
            into[t].addmm_(low, across)
            layer.forward(t)
            low = raw[t]

    def last(self) -> tuple[Tensor, ...]:
        return tuple(tensor for layer in self.layers for tensor in layer.last())

    def begin_backward(self, on_last: Sequence[Tensor | None]) -> Any:
        for layer, ons in zip(
            self.layers, _split(on_last, [layer.states for layer in self.layers]), strict=True
        ):
            layer.begin_backward(ons)
        back = [across.t() for across in self._across]
        return back, [layer.low.unbind(0) for layer in self.layers]

    def backward(self, carried: Any, t: int, on_hidden: Tensor, on_reads: Tensor) -> None:
        back, lows = carried
        on = on_hidden
        for n in range(len(self.layers) - 1, -1, -1):
            self.layers[n].backward(t, on)
            if n > 0:
                on = lows[n][t] @ back[n]
            else:
                on_reads.addmm_(lows[0][t], back[0])

    def end_backward(
        self, carried: Any, reads: Tensor, needed: tuple[bool, Sequence[bool], Sequence[bool]]
    ) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
        on_states: list[Tensor | None] = []
        on_weights: list[Tensor | None] = []
        low = self.layers[0].low.flatten(0, 1)
        on_x = None
        if needed[0]:
            on_x = (low @ self.given[0][0][:, : self.entered]).view_as(self.x)
        for n, layer in enumerate(self.layers):
            flat = layer.low.flatten(0, 1)
            came = [self.x, reads] if n == 0 else [self.raw[n - 1]]
            on_weight = torch.cat([flat.t() @ part.flatten(0, 1) for part in came], 1)
            states, own = layer.end_backward()
            on_states += states
            on_weights += [on_weight, flat.sum(0), *own]
        return (
            on_x,
            [on if wanted else None for on, wanted in zip(on_states, needed[1], strict=True)],
            [on if wanted else None for on, wanted in zip(on_weights, needed[2], strict=True)],
        )


def _split(parts: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    ends = np.cumsum(counts)
    return [parts[end - count : end] for end, count in zip(ends, counts, strict=True)]
