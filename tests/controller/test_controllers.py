"""Every controller: stepping equals running in parallel, padding is held, bad sizes name the key."""

from __future__ import annotations

import pytest
import torch

from mannlab import registry
from mannlab.checks import check_controller
from mannlab.contracts import Bits, StreamSpec, Vector
from mannlab.errors import ConfigError
from mannlab.model import MANN

TINY = {
    "lstm": {"hidden": 6, "layers": 2},
    "gru": {"hidden": 6, "layers": 2},
    "feedforward": {"hidden": 6, "layers": 2, "activation": "gelu"},
    "transformer": {"width": 8, "layers": 2, "heads": 2, "feedforward": 12},
}


def make(name: str):
    torch.manual_seed(0)
    controller = registry.build("controller", name, 3, **TINY[name]).double()
    for parameter in controller.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return controller


def stepped(controller, x, state, valid=None):
    outputs = []
    for t in range(x.shape[1]):
        h, state = controller.step(x[:, t], state, None if valid is None else valid[:, t])
        outputs.append(h)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("name", TINY)
def test_steps_and_sequence_agree(name):
    controller, x = make(name), torch.randn(3, 7, 3, dtype=torch.float64)
    one, _ = stepped(controller, x, controller.init_state(3))
    all_at_once, _ = controller.sequence(x, controller.init_state(3))
    torch.testing.assert_close(one, all_at_once, atol=1e-10, rtol=1e-8)
    single = controller.float()
    torch.testing.assert_close(
        stepped(single, x.float(), single.init_state(3))[0],
        single.sequence(x.float(), single.init_state(3))[0],
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("parallel", [True, False])
def test_padding_is_held_and_the_stream_goes_on(name, parallel):
    controller = make(name)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    more = torch.randn(2, 3, 3, dtype=torch.float64)
    valid = torch.tensor([[1.0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    run = controller.sequence if parallel else lambda *a: stepped(controller, *a)
    first, state = run(x, controller.init_state(2), valid)
    after, _ = run(more, state, None)
    short = torch.cat([x[:1, :2], more[:1]], 1)
    expected, _ = controller.sequence(short, controller.init_state(1))
    torch.testing.assert_close(first[:1, :2], expected[:, :2])
    torch.testing.assert_close(after[:1], expected[:, 2:])
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("name", TINY)
def test_later_inputs_change_no_earlier_output(name):
    controller, x = make(name), torch.randn(1, 6, 3, dtype=torch.float64)
    before, _ = controller.sequence(x, controller.init_state(1))
    changed = x.clone()
    changed[:, 4:] += 5
    after, _ = controller.sequence(changed, controller.init_state(1))
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_first_state_is_learned(name):
    controller = make(name)
    h, _ = controller.sequence(torch.randn(2, 3, 3, dtype=torch.float64), controller.init_state(2))
    h.sum().backward()
    assert controller.first_h.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("lstm", {"hidden": 0}, "controller.hidden"),
        ("gru", {"layers": 0}, "controller.layers"),
        ("feedforward", {"hidden": -1}, "controller.hidden"),
        ("feedforward", {"layers": -1}, "controller.layers"),
        ("feedforward", {"activation": "sin"}, "controller.activation"),
        ("transformer", {"width": 10, "heads": 4}, "controller.width"),
        ("transformer", {"dropout": 1.0}, "controller.dropout"),
        ("lstm", {"hidden": "many"}, "controller.hidden"),
        ("lstm", {"hiden": 3}, "controller.hiden"),
    ],
)
def test_impossible_options_name_the_key(name, options, named):
    with pytest.raises(ConfigError, match=named):
        registry.build("controller", name, 3, **options)


def test_a_context_limits_what_a_step_sees_and_what_is_kept():
    torch.manual_seed(0)
    short = registry.build(
        "controller", "transformer", 5, width=8, layers=1, heads=1, feedforward=8, context=3
    )
    x = torch.randn(2, 9, 5)
    whole, _ = short.sequence(x, short.init_state(2))
    steps, state = stepped(short, x, short.init_state(2))
    torch.testing.assert_close(steps, whole, rtol=1e-5, atol=1e-6)
    assert state.keys.shape[3] == 2
    assert state.before.tolist() == [7, 7]
    changed = x.clone()
    changed[:, 2] += 1
    moved = (short.sequence(changed, short.init_state(2))[0] - whole).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False, False, True, True, True, False, False, False, False]


def test_no_layers_change_nothing():
    controller = registry.build("controller", "feedforward", 5, layers=0)
    x = torch.randn(2, 3, 5)
    assert controller.output_size == 5
    assert torch.equal(controller.sequence(x, controller.init_state(2))[0], x)
    check_controller("feedforward", layers=0)


def test_no_layers_drive_a_memory():
    parts = ({"name": "feedforward", "layers": 0}, {"name": "dense", "slots": 4, "width": 3})
    model = MANN(*parts, StreamSpec({"x": Vector(2)}, Bits(2)))
    assert model({"x": torch.randn(2, 3, 2)}).shape == (2, 3, 2)


def test_padding_takes_no_place_in_a_short_context() -> None:
    """What follows a padded sequence sees as many real steps as what follows one without padding."""
    torch.manual_seed(0)
    model = registry.build("controller", "transformer", 3, width=8, layers=2, heads=2, context=4).double()
    x, more = torch.randn(1, 5, 3).double(), torch.randn(1, 3, 3).double()
    valid = torch.tensor([[1.0, 1, 1, 0, 0]]).double()
    _, padded = model.sequence(x, model.init_state(1), valid)
    _, plain = model.sequence(x[:, :3], model.init_state(1))
    after = [model.sequence(more, state)[0] for state in (padded, plain)]
    assert torch.allclose(after[0], after[1])


def test_half_precision_tells_positions_apart() -> None:
    from mannlab.controller.transformer import rotate

    x = torch.ones(1, 1, 2, 8, dtype=torch.bfloat16)
    one, other = rotate(x, torch.tensor([[500.0, 501.0]]))[0, 0]
    assert not torch.equal(one, other)
    model = registry.build(
        "controller", "transformer", 3, width=8, layers=1, heads=2, context=None
    ).bfloat16()
    _, state = model.sequence(torch.zeros(1, 301, 3, dtype=torch.bfloat16), model.init_state(1))
    assert model.progress(state).tolist() == [301]


@pytest.mark.parametrize("valid", [None, torch.tensor([[1.0, 1, 0], [1, 1, 1]])])
def test_an_lstm_in_mixed_precision_where_the_cpu_has_no_bfloat16(monkeypatch, valid):
    monkeypatch.setattr("mannlab.controller.lstm.lacks_bfloat16", lambda: True)
    controller, x = make("lstm").float(), torch.randn(2, 3, 3)
    wanted, _ = controller.sequence(x, controller.init_state(2), valid)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = controller.sequence(x, controller.init_state(2), valid)
        # What comes in may be the work of layers in half precision.
        half, _ = controller.sequence(x.bfloat16(), controller.init_state(2), valid)
    assert torch.equal(found, wanted)
    torch.testing.assert_close(half, wanted, atol=0.02, rtol=0.02)
