"""What is recorded, without a GPU: operations of torch are noted while a graph is captured.

Its replay does them again, into the same tensors, without Python between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.kernels.recording import WARM_UPS, Recording
from mannlab.model import MANN
from mannlab.model.graphs import Graphs


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.steps.append((function, args, kwargs or {}, result))
        return result


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Graph:
    """In the place of ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self.tape = Tape()

    def pool(self) -> None:
        return None

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, result in self.tape.steps:
                if function._schema.name.startswith("aten::empty"):
                    continue
                again = function(*args, **kwargs)
                places = {part.untyped_storage().data_ptr() for part in tensors((args, kwargs))}
                for old, new in zip(tensors(result), tensors(again), strict=True):
                    # Views and what is written in place lie where they lay.
                    if old.untyped_storage().data_ptr() not in places:
                        old.copy_(new)


@contextmanager
def capture(graph: Graph, **options: Any) -> Iterator[None]:
    with graph.tape:
        yield


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda s: nullcontext()}
    fakes |= {"synchronize": lambda: None, "device": lambda d: nullcontext()}
    for name, fake in (fakes | {"CUDAGraph": Graph, "graph": capture}).items():
        monkeypatch.setattr(torch.cuda, name, fake)


def test_replays_outputs_and_gradients():
    torch.manual_seed(0)
    layer, calls = nn.Linear(3, 4).double(), []

    def function(x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        calls.append(1)
        return [torch.tanh(linear(x, weight, bias)) * scale, x.detach() + 1]

    weights = list(layer.parameters())

    def draw() -> list[Tensor]:
        return [torch.randn(2, 3).double().requires_grad_(), torch.randn(2, 1).double()]

    recording = Recording(function, draw(), weights)
    assert len(calls) == WARM_UPS + 1
    for again in (False, True, False):
        inputs = draw()
        with torch.no_grad():
            layer.weight += 0.5  # where it lies
            found = [out.clone() for out in recording.forward(inputs)]
        outputs = function(*inputs, *weights)
        torch.testing.assert_close(found, [out.detach() for out in outputs])
        ons = [torch.randn_like(out) for out in outputs]
        grads = recording.backward(ons, False)
        if again:
            grads = recording.backward(ons, True)
        wanted = torch.autograd.grad(outputs[0], [inputs[0], *weights], ons[0])
        assert grads[1] is None
        torch.testing.assert_close([grads[0], *grads[2:]], list(wanted))
    assert len(calls) == WARM_UPS + 1 + 3


def test_without_gradients_there_is_nothing_to_go_back_through():
    layer = nn.Linear(3, 4)
    with torch.inference_mode():
        x = torch.randn(2, 3)
        recording = Recording(lambda x, *weights: [linear(x, *weights)], [x], list(layer.parameters()))
        torch.testing.assert_close(recording.forward([x])[0], layer(x))
    assert not recording.forward([torch.zeros(2, 3)])[0].is_inference()
    assert not hasattr(recording, "_backward")


@pytest.mark.parametrize("controller", ["lstm", "gru", "feedforward"])
@pytest.mark.parametrize("padded", [False, True])
def test_sequences_of_a_model(controller: str, padded: bool):
    """Through the whole model, whose weights an optimizer changes."""
    models = []
    for kind in ("graphs", "eager"):
        torch.manual_seed(0)
        memory = {"name": "dense", "slots": 5, "width": 3, "init": "learned"}
        spec = StreamSpec({"x": Vector(3)}, Bits(2))
        models.append(MANN({"name": controller, "hidden": 4}, memory, spec, backend=kind).double())
    models[0].graphs = Graphs(devices=("cpu",))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    for turn in range(7):
        x = torch.randn(2, 5, 3, dtype=torch.float64)
        valid = (torch.arange(5) < torch.tensor([[5], [turn]])).double() if padded else None
        found = []
        for model, optimizer in zip(models, optimizers, strict=True):
            logits = model({"x": x}, valid)
            optimizer.zero_grad()
            logits.square().sum().backward()
            optimizer.step()
            found.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
        torch.testing.assert_close(*found)
        if turn == 3:  # weights that move are followed
            for model in models:
                model.interface.weight.data = model.interface.weight.data * 2
    assert len(models[0].graphs.entries) == 2
    assert all(isinstance(weight, nn.Parameter) for weight in models[0].parameters())
