"""Feed-forward controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor, nn

from mannlab.contracts import Controller
from mannlab.errors import at_least_one, require
from mannlab.registry import register

if TYPE_CHECKING:
    from mannlab.kernels.fused.cells import ControllerCell

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


class NoState(NamedTuple):
    """Nothing is carried from step to step."""


@register("controller", "feedforward")
class FeedForward(Controller[NoState]):
    """Layers without a state of their own: all that is remembered is in the memory.

    Args:
        input_size: width of what comes in at each step.
        hidden: units of each layer.
        layers: number of layers; 0: what comes in goes on as it is.
        activation: after each layer.

    Raises:
        ConfigError: an impossible size.
    """

    def __init__(
        self,
        input_size: int,
        *,
        hidden: int = 100,
        layers: int = 1,
        activation: Literal["tanh", "relu", "gelu"] = "tanh",
    ) -> None:
        super().__init__()
        at_least_one("controller", hidden=hidden)
        require(layers >= 0, f"controller.layers: {layers} is not allowed.", "It must be at least 0.")
        self.output_size, self.activation = hidden if layers else input_size, activation
        sizes = [input_size, *[hidden] * layers]
        parts = [
            part
            for size, after in pairwise(sizes)
            for part in (nn.Linear(size, after), ACTIVATIONS[activation]())
        ]
        self.layers = nn.Sequential(*parts)

    def init_state(self, batch: int) -> NoState:
        return NoState()

    def forward(self, x: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        return self.layers(x), state

    def fused(self, state: NoState) -> tuple[ControllerCell, Callable[[Sequence[Tensor]], NoState]] | None:
        if not len(self.layers):
            return None
        from mannlab.kernels.fused.controllers import PlainLayer, Stack

        every = [(layer.weight, layer.bias) for layer in self.layers if isinstance(layer, nn.Linear)]
        cell = Stack([PlainLayer(self.activation) for _ in every], every, [() for _ in every])
        return cell, lambda last: state

    def sequence(self, x: Tensor, state: NoState, valid: Tensor | None = None) -> tuple[Tensor, NoState]:
        return self.layers(x), state
