"""Histories made again in the backward pass: the same numbers, less kept."""

from __future__ import annotations

import pytest
import torch

from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.errors import ConfigError
from mannlab.kernels.fused import sequence
from mannlab.model import MANN
from tests.kernels.fused.test_sequence import assert_same, draw, make, results

SPEC = StreamSpec({"x": Vector(3)}, Bits(2))


@pytest.mark.parametrize("controller", ["lstm", "gru", "feedforward"])
@pytest.mark.parametrize("backend", ["eager", "fused"])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_keeping_all(controller, backend, padded):
    model = make(controller, slots=7, width=4)
    x, valid = draw(3, 8, padded)
    whole = results(model, backend, x, valid)
    for every in (1, 3, 8, 20):
        model.checkpoint_every = every
        assert_same(results(model, backend, x, valid), whole)


def test_a_stream_goes_on_without_its_history():
    model = make("lstm", slots=7, width=4)
    x, _ = draw(2, 8, False)
    whole = model({"x": x})
    model.checkpoint_every = 2
    first, state = model.run({"x": x[:, :4]})
    first.sum().backward()
    second, _ = model.run({"x": x[:, 4:]}, state=model.detach(state))
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    model.zero_grad()
    second.sum().backward()
    assert model.interface.weight.grad is not None
    assert model.interface.weight.grad.any()


def test_dropout_is_drawn_the_same_again():
    torch.manual_seed(0)
    options = {"name": "transformer", "width": 8, "heads": 2, "layers": 1, "dropout": 0.5}
    model = MANN(options, {"name": "dense", "slots": 5, "width": 3}, SPEC).double()
    x, _ = draw(2, 6, False)
    found = []
    for every in (None, 2):
        model.checkpoint_every = every
        torch.manual_seed(5)
        found.append(results_of(model, x))
    torch.testing.assert_close(*found)


def results_of(model: MANN, x: torch.Tensor):
    model.zero_grad()
    model({"x": x}).square().sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_running_statistics_move_once():
    keys = {"name": "product_key", "slots": 16, "width": 4, "heads": 1, "knn": 2, "key_width": 4}
    found = []
    for every in (None, 2):
        torch.manual_seed(0)
        model = MANN({"name": "lstm", "hidden": 6}, keys, SPEC, feedback=True, checkpoint_every=every)
        before = [buffer.clone() for buffer in model.buffers()]
        model({"x": draw(8, 6, False, torch.float32)[0]}).sum().backward()
        found.append(list(model.buffers()))
    assert any(not torch.equal(*pair) for pair in zip(before, found[0], strict=True))
    torch.testing.assert_close(*found)


def test_mixed_precision():
    model = make("lstm", torch.float32, slots=7, width=4)
    x, _ = draw(2, 6, False, torch.float32)
    found = []
    for every in (None, 2):
        model.checkpoint_every = every
        with torch.autocast("cpu", torch.bfloat16):
            loss = model({"x": x}).float().square().sum()
        model.zero_grad()
        loss.backward()
        found.append(model.interface.weight.grad.clone())
    torch.testing.assert_close(*found, rtol=0.05, atol=0.05)


def test_only_parts_are_kept(monkeypatch):
    seen, run = [], sequence.run

    def watched(*parts):
        seen.append((torch.is_grad_enabled(), parts[3].shape[1]))
        return run(*parts)

    monkeypatch.setattr(sequence, "run", watched)
    model = make("lstm", slots=7, width=4)
    model.checkpoint_every = 4
    x, _ = draw(2, 10, False)
    model({"x": x}).sum().backward()
    assert seen == [(False, 4), (False, 4), (False, 2), (True, 2), (True, 4), (True, 4)]


def test_refused_for_memories_that_change_in_place():
    with pytest.raises(ConfigError, match="SparseMemory cannot run its steps twice"):
        MANN({"name": "lstm"}, {"name": "sparse", "slots": 16}, SPEC, checkpoint_every=4)


def test_refused_below_one():
    with pytest.raises(ConfigError, match="checkpoint_every: 0"):
        MANN({"name": "lstm"}, {"name": "dense"}, SPEC, checkpoint_every=0)
