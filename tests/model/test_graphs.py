"""Recorded sequences, without a GPU: a recorder that has a real one's buffers, and calls the function."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.errors import ConfigError
from mannlab.model import MANN, backend
from mannlab.model.graphs import Graphs, Lengths, bucket

SPEC = StreamSpec({"x": Vector(3)}, Bits(2))
DENSE = {"name": "dense", "slots": 5, "width": 3, "init": "learned"}
CONTROLLERS = ["lstm", "gru", "feedforward"]


class Fake:
    """What goes in and out lies in the same buffers at every call, as in a CUDA graph."""

    made = 0

    def __init__(self, function: Any, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        type(self).made += 1
        self.function, self.grad = function, torch.is_grad_enabled()
        self.weights = [weight.detach().requires_grad_() for weight in weights]
        self.inputs = [part.detach().clone().requires_grad_(part.requires_grad) for part in inputs]
        self.outputs: list[Tensor] = []
        self.grads: list[Tensor | None] = []

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        assert not torch.is_grad_enabled()
        for own, given in zip(self.inputs, inputs, strict=True):
            assert own.shape == given.shape
            own.copy_(given)
        return self.replay()

    def replay(self) -> list[Tensor]:
        with torch.set_grad_enabled(self.grad):
            self.live = self.function(*self.inputs, *self.weights)
        self.outputs = self.into(self.outputs, self.live)
        return self.outputs

    def backward(self, ons: Sequence[Tensor], again: bool) -> list[Tensor | None]:
        if again:
            self.replay()
        pairs = [(out, on) for out, on in zip(self.live, ons, strict=True) if out.requires_grad]
        parts = [*self.inputs, *self.weights]
        wanted = [part for part in parts if part.requires_grad]
        made, given = [out for out, _ in pairs], [on for _, on in pairs]
        found = iter(torch.autograd.grad(made, wanted, given, allow_unused=True))
        del self.live
        grads = [next(found) if part.requires_grad else None for part in parts]
        self.grads = self.into(self.grads, grads)
        return self.grads

    @staticmethod
    def into(buffers: list[Any], values: Sequence[Tensor | None]) -> list[Any]:
        if not buffers:
            return [None if value is None else value.detach().clone() for value in values]
        for buffer, value in zip(buffers, values, strict=True):
            if value is not None:
                buffer.copy_(value.detach())
        return buffers


@pytest.fixture(autouse=True)
def count() -> None:
    Fake.made = 0


def make(controller: str = "lstm", recorded: bool = True, most: int = 4, **options: Any) -> MANN:
    torch.manual_seed(0)
    model = MANN({"name": controller, "hidden": 4}, {**DENSE, **options}, SPEC, backend="graphs").double()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.3
    model.graphs = Graphs(Fake, ("cpu",), most)
    if not recorded:
        model.backend = "eager"
    return model


def draw(batch: int, steps: int, padded: bool = False) -> tuple[Tensor, Tensor | None]:
    x = torch.randn(batch, steps, 3, dtype=torch.float64)
    lengths = torch.randint(0, steps + 1, (batch, 1))
    return x, (torch.arange(steps) < lengths).double() if padded else None


def results(model: MANN, x: Tensor, valid: Tensor | None, state: Any = None) -> dict[str, Tensor]:
    """Outputs, last state and all gradients of a random function of them."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    logits, last = model.run({"x": x}, valid, state=state)
    outputs = {"logits": logits, "reads": last.reads}
    outputs |= {f"memory {n}": part for n, part in enumerate(last.memory)}
    parts = [part for part in last.controller if isinstance(part, Tensor)]
    outputs |= {f"controller {n}": part for n, part in enumerate(parts)}
    torch.manual_seed(3)
    sum((out * torch.randn_like(out)).sum() for out in outputs.values()).backward()
    found = {name: out.detach() for name, out in outputs.items()} | {"on x": x.grad}
    return found | {f"on {name}": parameter.grad for name, parameter in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, msg=lambda m, n=name: f"{n}: {m}")


def warm(model: MANN, x: Tensor) -> None:
    """Record."""
    for _ in range(2):
        model({"x": x}).sum().backward()
    assert Fake.made == 1


# ---------------------------------------------------------------------- lengths


def test_buckets():
    assert [bucket(n) for n in (1, 2, 5, 8, 9, 10, 11, 16, 17, 33, 42, 64, 65)] == [
        *(1, 2, 5, 8, 10, 10, 12, 16, 20, 40, 48, 64, 80)
    ]
    for steps in range(1, 2000):
        assert steps <= bucket(steps) < 1.25 * steps + 1
        assert bucket(bucket(steps)) == bucket(steps)
    assert len({bucket(n) for n in range(1, 1025)}) <= 36


def test_the_first_lengths_are_kept_as_they_are():
    lengths = Lengths(2)
    assert [lengths.fit(n) for n in (42, 42, 17, 42, 33, 17, 9)] == [42, 42, 17, 42, 40, 17, 10]


# ---------------------------------------------------------------------- results


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("exact", [0, 2])
def test_equals_step_by_step(controller, padded, exact):
    """At a length of its own and padded to another; the first call of a shape, the second and the third."""
    fast, slow = make(controller), make(controller, recorded=False)
    fast.graphs.lengths = Lengths(exact)
    for turn in range(4):
        x, valid = draw(3, 9, padded)
        same(results(fast, x, valid), results(slow, x, valid))
        with torch.no_grad():
            torch.testing.assert_close(fast({"x": x}, valid), slow({"x": x}, valid))
        # One with gradients, one without.
        assert Fake.made == 2 * (turn > 0)


def test_training_is_the_same():
    """Weights change in place between calls, of several shapes, and the gradients of some are added up."""
    fast, slow = make(), make(recorded=False)
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.02) for model in (fast, slow)]
    for turn in range(24):
        x, valid = draw(2, (5, 9, 11)[turn // 2 % 3], turn >= 12)
        for model, optimizer in zip((fast, slow), optimizers, strict=True):
            model({"x": x}, valid).square().mean().backward()
            if turn % 2:
                optimizer.step()
                optimizer.zero_grad()
    assert Fake.made > 2
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_stream_goes_on_from_its_state():
    fast, slow = make(), make(recorded=False)
    states = [None, None]
    for _ in range(4):
        x, _ = draw(2, 6)
        found = []
        for n, model in enumerate((fast, slow)):
            logits, states[n] = model.run({"x": x}, state=states[n])
            model.zero_grad()
            logits.sum().backward()
            states[n] = model.detach(states[n])
            found.append([logits.detach(), model.interface.weight.grad])
        torch.testing.assert_close(*found)
    # One recording: a state that is given is like one that is made, but wants no gradient.
    assert Fake.made == 1


def test_what_was_given_out_stays_as_it_is():
    model = make()
    x, _ = draw(2, 6)
    with torch.no_grad():
        for _ in range(2):
            model({"x": x})
        logits, state = model.run({"x": x})
        kept = [logits.clone(), state.reads.clone(), state.memory.memory.clone()]
        model({"x": torch.randn_like(x)})
    torch.testing.assert_close([logits, state.reads, state.memory.memory], kept)


def test_what_was_given_out_with_gradients_stays_as_it_is():
    model = make()
    x, _ = draw(2, 6)
    warm(model, x)
    found = []
    for _ in range(2):
        reads = model.run({"x": x})[1].reads
        (on,) = torch.autograd.grad(reads.sum(), model.interface.weight)
        found += [reads, on]
        if len(found) == 2:
            kept = [part.clone() for part in found]
        x = torch.randn_like(x)
    torch.testing.assert_close(found[:2], kept)


def test_weights_that_move_are_followed():
    fast, slow = make(), make(recorded=False)
    x, _ = draw(2, 6)
    for _ in range(2):
        same(results(fast, x, None), results(slow, x, None))
    for model in (fast, slow):
        model.interface.weight.data = model.interface.weight.data * 2
    for _ in range(2):
        same(results(fast, x, None), results(slow, x, None))
    assert Fake.made == 2


def test_evaluation_in_inference_mode():
    fast, slow = make(), make(recorded=False)
    x, _ = draw(2, 6)
    with torch.inference_mode():
        for _ in range(3):
            torch.testing.assert_close(fast({"x": x}), slow({"x": x}))


# ---------------------------------------------------------------------- histories


def test_a_second_sequence_before_the_first_goes_backward(caplog):
    model, slow = make(), make(recorded=False)
    (x, _), (y, _) = draw(2, 6), draw(2, 6)
    warm(model, x)
    wanted = torch.autograd.grad(slow({"x": x}).sum() + slow({"x": y}).sum(), slow.interface.weight)
    with caplog.at_level("INFO"):
        for _ in range(2):
            one, other = model({"x": x}).sum(), model({"x": y}).sum()
            torch.testing.assert_close(torch.autograd.grad(one + other, model.interface.weight), wanted)
    assert sum("wait for their backward pass" in message for message in caplog.messages) == 1


def test_a_sequence_that_is_dropped_makes_room():
    model = make()
    x, _ = draw(2, 6)
    warm(model, x)
    (entry,) = model.graphs.entries.values()
    logits = model({"x": x})
    assert entry.busy()
    del logits
    gc.collect()
    assert not entry.busy()


def test_backward_twice_and_too_late():
    model, slow = make(), make(recorded=False)
    x, _ = draw(2, 6)
    warm(model, x)
    weight = model.interface.weight
    wanted = torch.autograd.grad(slow({"x": x}).square().sum(), slow.interface.weight)
    loss = model({"x": x}).square().sum()
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(loss, weight, retain_graph=True), wanted)
    model({"x": torch.randn_like(x)})
    with pytest.raises(RuntimeError, match="history of this sequence is gone"):
        torch.autograd.grad(loss, weight)


def test_weights_that_change_before_the_backward_pass_are_noticed():
    model = make()
    x, _ = draw(2, 6)
    warm(model, x)
    loss = model({"x": x}).sum()
    with torch.no_grad():
        model.interface.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_differentiating_twice_is_refused():
    model = make()
    x, _ = draw(2, 6)
    warm(model, x)
    (on,) = torch.autograd.grad(model({"x": x}).square().sum(), [model.interface.weight], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        on.sum().backward()


# ---------------------------------------------------------------------- what is kept


def test_only_the_last_used_are_kept():
    model = make(most=2)
    model.graphs.lengths = Lengths(0)
    with torch.no_grad():
        for steps in (3, 3, 4, 4, 3, 5, 5):
            model({"x": draw(1, steps)[0]})
        assert Fake.made == 3
        assert len(model.graphs.entries) == 2
        model({"x": draw(1, 3)[0]})
        assert Fake.made == 3
        model({"x": draw(1, 4)[0]})
    assert Fake.made == 4


def test_a_shape_that_comes_once_is_not_recorded():
    model = make()
    with torch.no_grad():
        for batch in range(1, 5):
            model({"x": draw(batch, 6)[0]})
    assert Fake.made == 0


def test_copies_record_their_own():
    model = make()
    x, _ = draw(2, 6)
    with torch.no_grad():
        for _ in range(2):
            model({"x": x})
        other = copy.deepcopy(model)
        assert len(model.graphs.entries) == 1
        assert not other.graphs.entries
        torch.testing.assert_close(other({"x": x}), model({"x": x}))
    assert not pickle.loads(pickle.dumps(model)).graphs.entries
    assert not any("graphs" in key for key in model.state_dict())


# ---------------------------------------------------------------------- what runs step by step


def test_where_recording_fails_it_runs_step_by_step_and_says_so_once(caplog):
    def broken(*parts: Any) -> Any:
        raise RuntimeError("no capture\nhere")

    model, slow = make(), make(recorded=False)
    model.graphs = Graphs(broken, ("cpu",))
    x, _ = draw(2, 6)
    for _ in range(4):
        same(results(model, x, None), results(slow, x, None))
    said = [message for message in caplog.messages if "run step by step" in message]
    assert said == ["CUDA graphs: sequences run step by step: RuntimeError: no capture"]


@pytest.mark.parametrize("wrong", ["outputs", "gradients"])
def test_a_recording_that_does_something_else_is_not_used(wrong, caplog):
    class Liar(Fake):
        def replay(self) -> list[Tensor]:
            outputs = super().replay()
            return [out + 1 for out in outputs] if wrong == "outputs" else outputs

        def backward(self, ons: Sequence[Tensor], again: bool) -> list[Tensor | None]:
            grads = super().backward(ons, again)
            return [None if grad is None else grad * 2 for grad in grads] if wrong == "gradients" else grads

    model, plain = make(), make(recorded=False)
    model.graphs = Graphs(Liar, ("cpu",))
    x, _ = draw(2, 3)
    if wrong == "gradients":  # which an evaluation does not show
        with torch.no_grad():
            for _ in range(3):
                model({"x": x})
    for _ in range(3):
        same(results(model, x, None), results(plain, x, None))
    said = [message for message in caplog.messages if "something else than the steps" in message]
    assert len(said) == 1


def test_a_first_recording_is_told_with_its_time_and_no_other(caplog):
    model = make()
    with caplog.at_level("INFO"), torch.no_grad():
        for steps in (3, 3, 4, 4):
            model({"x": draw(1, steps)[0]})
    assert Fake.made == 2
    assert sum("recorded a sequence" in message for message in caplog.messages) == 1


def test_traces_hooks_and_recomputed_parts_are_not_recorded(caplog):
    model = make()
    x, _ = draw(2, 6)
    with torch.no_grad():
        for _ in range(3):
            trace: dict[str, list[Tensor]] = {}
            model({"x": x}, trace=trace)
            assert [len(steps) for steps in trace.values()] == [6, 6]
        calls = []
        handle = model.interface.register_forward_hook(lambda *parts: calls.append(1))
        with caplog.at_level("INFO"):
            for _ in range(3):
                model({"x": x})
        handle.remove()
        assert len(calls) == 18
        assert sum("hooks" in message for message in caplog.messages) == 1
    model.checkpoint_every = 2
    slow = make(recorded=False)
    slow.checkpoint_every = 2
    for _ in range(3):
        same(results(model, x, None), results(slow, x, None))
    assert Fake.made == 0


def test_long_sequences_are_not_recorded(monkeypatch):
    monkeypatch.setattr("mannlab.model.graphs.MOST_STEPS", 5)
    model = make()
    with torch.no_grad():
        for _ in range(3):
            model({"x": draw(1, 6)[0]})
    assert Fake.made == 0


def test_no_steps_at_all_and_a_search_for_nan():
    model = make()
    assert model.graphs.refuses((model.controller,), 0)
    assert not model.graphs.refuses((model.controller,), 1)
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        assert model.graphs.refuses((model.controller,), 1)


# ---------------------------------------------------------------------- choosing


def test_graphs_are_for_cuda_devices():
    model = MANN({"name": "lstm", "hidden": 4}, DENSE, SPEC, backend="graphs")
    parts = (model.controller, model.memory, torch.device("cpu"))
    with pytest.raises(ConfigError, match="graphs is not allowed on cpu"):
        backend.describe("graphs", *parts)
    with pytest.raises(ConfigError, match="graphs is not allowed on cpu"):
        model({"x": torch.zeros(1, 2, 3)})


def test_graphs_are_refused_for_what_is_more_than_tensors():
    with pytest.raises(ConfigError, match="SparseMemory has no fused form"):
        MANN({"name": "lstm"}, {"name": "sparse", "slots": 16, "width": 3}, SPEC, backend="graphs")
    with pytest.raises(ConfigError, match="Transformer has no fused form"):
        MANN({"name": "transformer", "width": 4, "heads": 1, "layers": 1}, DENSE, SPEC, backend="graphs")


@pytest.mark.parametrize("chosen", ["auto", "fused"])
def test_kernels_are_recorded_where_there_are_any(chosen, monkeypatch):
    """As on a GPU, with the memory's own step in the place of its kernels."""
    model, slow = make(), make(recorded=False)
    steps = []

    def on_gpu(memory: Any, state: Any) -> Any:
        return lambda *parts: steps.append(1) or memory.step(*parts)

    monkeypatch.setattr(type(model.memory), "on_gpu", on_gpu)
    monkeypatch.setattr(backend, "fused", lambda *parts: None)
    monkeypatch.setattr(backend, "_on_device", lambda kind, memory, x, state: memory.on_gpu(state.memory))
    model.backend = chosen
    x, valid = draw(2, 6, True)
    for _ in range(3):
        same(results(model, x, valid), results(slow, x, valid))
    assert Fake.made == 1
    assert steps


def test_auto_on_a_cpu_stays_as_it_is():
    model = make()
    model.backend = "auto"
    with torch.no_grad():
        for _ in range(3):
            model({"x": draw(1, 4)[0]})
    assert Fake.made == 0


def test_what_is_said_of_a_gpu(monkeypatch):
    device = torch.device("cuda")
    model = make()
    parts = (model.controller, model.memory, device)
    assert "no kernels" in backend.describe("auto", *parts)
    monkeypatch.setattr(type(model.memory), "on_gpu", lambda memory, state: memory.step)
    said = backend.describe("auto", *parts)
    assert "one kernel" in said
    assert "CUDA graphs" in said
    assert "CUDA graphs" in backend.describe("graphs", *parts)
    other = MANN({"name": "transformer", "width": 4, "heads": 1, "layers": 1}, DENSE, SPEC)
    assert "Transformer has no fused form" in backend.describe("auto", other.controller, other.memory, device)
    sparse = MANN({"name": "lstm"}, {"name": "sparse", "slots": 16, "width": 3}, SPEC)
    said = backend.describe("auto", sparse.controller, sparse.memory, device)
    assert said == "backend eager: the memory SparseMemory has no form for cuda"


# ---------------------------------------------------------------------- on a GPU, where there is one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("chosen", ["graphs", "fused", "auto"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_on_a_gpu(controller, padded, chosen):
    """Real graphs, of the memory's kernels too, through training and evaluation."""
    fast, slow = make(controller).cuda(), make(controller, recorded=False).cuda()
    fast.backend, fast.graphs = chosen, Graphs()
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (fast, slow)]
    losses = []  # keeps the graphs of steps that were not recorded
    for turn in range(12):
        x, valid = draw(3, (9, 5, 11, 13)[turn % 4], padded)
        x, valid = x.cuda(), None if valid is None else valid.cuda()
        found = []
        for model, optimizer in zip((fast, slow), optimizers, strict=True):
            loss = model({"x": x}, valid).square().sum()
            loss.backward()
            losses.append(loss)
            found.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
            if turn % 2:
                optimizer.step()
                optimizer.zero_grad()
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)
        with torch.inference_mode():
            torch.testing.assert_close(fast({"x": x}, valid), slow({"x": x}, valid), rtol=1e-6, atol=1e-8)
    assert len(fast.graphs.entries) == 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("chosen", ["graphs", "fused"])
def test_on_a_gpu_in_mixed_precision(chosen):
    fast, slow = make().float().cuda(), make(recorded=False).float().cuda()
    fast.backend, fast.graphs = chosen, Graphs()
    for _ in range(3):
        x = draw(3, 9)[0].float().cuda()
        found = []
        for model in (fast, slow):
            model.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                logits = model({"x": x})
            logits.float().square().sum().backward()
            found.append([logits.detach().float(), *(parameter.grad for parameter in model.parameters())])
        torch.testing.assert_close(*found, rtol=0.1, atol=0.1)
    assert len(fast.graphs.entries) == 1
