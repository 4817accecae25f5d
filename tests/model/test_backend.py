"""Choosing what runs the steps."""

from __future__ import annotations

import pytest
import torch

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.errors import ConfigError
from mannlab.kernels.fused import sequence
from mannlab.model import MANN, backend, compiled

SPEC = StreamSpec({"x": Vector(3)}, Bits(2))
LSTM, DENSE = {"name": "lstm", "hidden": 4}, {"name": "dense", "slots": 5, "width": 3}


@pytest.fixture
def runs(monkeypatch):
    """Counts fused sequences."""
    seen, run = [], sequence.run
    monkeypatch.setattr(sequence, "run", lambda *parts: seen.append(1) or run(*parts))
    return seen


def test_auto_takes_the_fused_form_where_there_is_one(runs):
    model = MANN(LSTM, DENSE, SPEC)
    model({"x": torch.zeros(1, 2, 3)})
    assert runs == [1]
    assert "fused" in backend.describe("auto", model.controller, model.memory, torch.device("cpu"))


def test_eager_does_not(runs):
    MANN(LSTM, DENSE, SPEC, backend="eager")({"x": torch.zeros(1, 2, 3)})
    assert runs == []


@pytest.mark.parametrize("controller", [LSTM, {"name": "transformer", "width": 4, "heads": 1, "layers": 1}])
def test_auto_runs_what_has_no_such_form(runs, controller):
    model = MANN(controller, {"name": "sparse", "slots": 16, "width": 3}, SPEC)
    assert model({"x": torch.zeros(1, 2, 3)}).shape == (1, 2, 2)
    assert runs == []
    said = backend.describe("auto", model.controller, model.memory, torch.device("cpu"))
    assert "SparseMemory" in said


def test_a_trace_of_every_step_is_made_step_by_step(runs):
    trace: dict[str, list[torch.Tensor]] = {}
    MANN(LSTM, DENSE, SPEC)({"x": torch.zeros(1, 2, 3)}, trace=trace)
    assert runs == []
    assert [len(steps) for steps in trace.values()] == [2, 2]


def test_mixed_precision_runs_step_by_step(runs):
    with torch.autocast("cpu", torch.bfloat16):
        MANN(LSTM, DENSE, SPEC)({"x": torch.zeros(1, 2, 3)})
    assert runs == []


def test_what_keeps_the_fused_form_away_is_named():
    model = MANN(LSTM, DENSE, SPEC, backend="fused")
    parts = (model.controller, model.memory, torch.device("cpu"), model.interface)
    assert "one node" in backend.describe("auto", *parts, "64-true")
    said = backend.describe("auto", *parts, "bf16-mixed")
    assert "eager" in said
    assert "trainer.precision=bf16-mixed" in said
    with pytest.raises(ConfigError, match=r"fused is not allowed here: .*bf16-mixed"):
        backend.describe("fused", *parts, "bf16-mixed")
    direct = {**LSTM, "hidden": model.memory.interface_size}
    said = backend.describe("auto", *parts[:3], MANN(direct, DENSE, SPEC, interface="direct").interface)
    assert "model.interface=direct has no fused form" in said
    with pytest.raises(ConfigError, match=r"model\.interface=direct has no fused form"):
        MANN(direct, DENSE, SPEC, interface="direct", backend="fused")


def test_without_the_compiler_it_runs_step_by_step(runs, monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    model = MANN(LSTM, DENSE, SPEC)
    model({"x": torch.zeros(1, 2, 3)})
    assert runs == []
    said = backend.describe("auto", model.controller, model.memory, torch.device("cpu"))
    assert "numba is not installed" in said


@pytest.fixture
def plain_compiler(monkeypatch):
    """Traces without generating code, which takes half a minute."""
    monkeypatch.setattr(compiled, "COMPILER", "eager")
    compiled._step_of.cache_clear()
    yield
    compiled._step_of.cache_clear()


def test_compiled_gives_the_same(runs, plain_compiler, caplog):
    model = MANN(LSTM, DENSE, SPEC)
    x, valid = torch.randn(2, 3, 3), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    found = []
    for kind in ("eager", "compiled"):
        model.backend = kind
        model.zero_grad()
        with caplog.at_level("INFO"):
            logits = model({"x": x}, valid)
        logits.square().sum().backward()
        found.append([logits.detach(), model.interface.weight.grad.clone()])
    torch.testing.assert_close(*found)
    assert runs == []
    assert sum("Compiled DenseMemory in" in message for message in caplog.messages) == 1


def test_where_compiling_fails_it_runs_step_by_step_and_says_so_once(plain_compiler, monkeypatch, caplog):
    def broken(*parts):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "COMPILER", broken)
    model = MANN(LSTM, DENSE, SPEC, backend="compiled")
    x = torch.randn(1, 2, 3)
    logits = model({"x": x})
    model({"x": x})
    said = [message for message in caplog.messages if "runs step by step" in message]
    assert len(said) == 1
    assert "no compiler here" in said[0]
    model.backend = "eager"
    torch.testing.assert_close(logits, model({"x": x}))


def test_compiled_is_refused_for_memories_that_change_in_place():
    with pytest.raises(ConfigError, match="compiled is not allowed here: SparseMemory"):
        MANN(LSTM, {"name": "sparse", "slots": 16, "width": 3}, SPEC, backend="compiled")


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="there is no 'fusd'"):
        MANN(LSTM, DENSE, SPEC, backend="fusd")


def test_fused_is_refused_for_a_memory_without_it():
    with pytest.raises(ConfigError, match="SparseMemory has no fused form"):
        MANN(LSTM, {"name": "sparse", "slots": 16, "width": 3}, SPEC, backend="fused")


def test_fused_is_refused_on_other_devices():
    model = MANN(LSTM, DENSE, SPEC, backend="fused").to("meta")
    with pytest.raises(ConfigError, match="fused is not allowed on meta"):
        model({"x": torch.zeros(1, 2, 3, device="meta")})


def test_a_memory_that_inherits_from_one_with_it_runs_its_own_steps(runs):
    from mannlab.memory.dense import DenseMemory
    from mannlab.registry import register

    class Loud(DenseMemory):
        def forward(self, interface, state):
            reads, state = super().forward(interface, state)
            return reads * 0 + 7, state

    register("memory", "loud_for_a_test")(Loud)
    model = MANN(LSTM, {"name": "loud_for_a_test", "slots": 5, "width": 3}, SPEC)
    _, state = model.run({"x": torch.zeros(1, 2, 3)})
    assert runs == []
    assert (state.reads == 7).all()


def test_a_controller_without_layers_is_not_called_fused():
    plain = {"name": "feedforward", "layers": 0}
    model = MANN(plain, DENSE, SPEC)
    said = backend.describe("auto", model.controller, model.memory, torch.device("cpu"))
    why = "the controller FeedForward has no fused form with these options"
    assert said == f"backend eager: {why}, so steps run one by one"
    with pytest.raises(ConfigError, match="with these options"):
        MANN(plain, DENSE, SPEC, backend="fused")


@pytest.mark.parametrize("memory", ["dense", "lrua", "dnc"])
def test_nothing_waits_for_the_device(memory):
    """A CUDA graph cannot record what does."""
    heads = {"write_heads": 2} if memory == "dense" else {}
    options = {"name": memory, "slots": 5, "width": 3, "read_heads": 2, **heads}
    model = MANN(LSTM, options, SPEC, backend="eager")
    x = torch.randn(2, 3, 3)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        model({"x": x}).square().sum().backward()
    waiting = {event.key for event in profile.key_averages()} & {"aten::item", "aten::_local_scalar_dense"}
    assert not waiting


@pytest.mark.parametrize("memory", ["dense", "lrua", "dnc"])
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_mixed_precision_leaves_a_memory_whole(memory, low):
    options = {"name": memory, "slots": 5, "width": 3, "read_heads": 2}
    model = MANN(LSTM, options | ({"write_heads": 2} if memory == "dense" else {}), SPEC)
    with torch.autocast("cpu", low):
        logits, last = model.run({"x": torch.randn(2, 6, 3)})
    logits.float().square().sum().backward()
    assert {part.dtype for part in last.memory if part is not None} == {torch.float32}
    assert all(part.isfinite().all() for part in last.memory if part is not None)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
