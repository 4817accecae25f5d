"""Joining controller and memory: feedback, padding, continuing a stream, encoders, errors."""

from __future__ import annotations

import pytest
import torch

from mannlab.contracts import Bits, Classes, Image, StreamSpec, Token, Vector
from mannlab.errors import ConfigError
from mannlab.model import MANN, assemble

LSTM = {"name": "lstm", "hidden": 7}
DENSE = {"name": "dense", "slots": 6, "width": 4}
SPEC = StreamSpec({"x": Vector(3)}, Bits(2))


def make(controller=LSTM, memory=DENSE, spec=SPEC, **options) -> MANN:
    torch.manual_seed(0)
    return MANN(controller, memory, spec, **options).double()


def stream(batch: int = 2, steps: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"x": torch.randn(batch, steps, 3, dtype=torch.float64)}


def test_reads_of_one_step_reach_the_controller_at_the_next():
    """What peers get wrong: the gradient of the weights that take the reads in must not be zero."""
    model = make()
    model(stream()).square().sum().backward()
    incoming = model.controller.lstm.weight_ih_l0.grad[:, 3:]
    assert incoming.shape[1] == model.memory.read_size
    assert incoming.abs().max() > 0


def test_without_feedback_reads_are_not_fed_back():
    model = make(feedback=False)
    assert model.controller.lstm.weight_ih_l0.shape[1] == 3
    assert model(stream()).shape == (2, 5, 2)


@pytest.mark.parametrize("memory", [DENSE, {"name": "none"}])
@pytest.mark.parametrize("feedback", [True, False])
def test_padding_changes_no_real_step(memory, feedback):
    model = make(memory=memory, feedback=feedback)
    inputs = stream()["x"]
    valid = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    padded = model({"x": inputs}, valid)
    rubbish = inputs.clone()
    rubbish[0, 3:] = 99.0
    torch.testing.assert_close(model({"x": rubbish}, valid)[0, :3], padded[0, :3])
    torch.testing.assert_close(model({"x": inputs[:1, :3]})[0], padded[0, :3])


def test_a_stream_can_be_continued():
    model = make()
    inputs = stream(steps=6)["x"]
    whole, end = model.run({"x": inputs})
    first, middle = model.run({"x": inputs[:, :2]})
    second, last = model.run({"x": inputs[:, 2:]}, state=middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last.memory.memory, end.memory.memory)


def test_padding_holds_the_state_so_that_a_stream_can_be_continued():
    model = make()
    inputs = stream(batch=1, steps=4)["x"]
    _, end = model.run({"x": inputs[:, :2]})
    _, held = model.run({"x": inputs}, torch.tensor([[1.0, 1, 0, 0]]))
    for got, expected in zip(held.controller[:2], end.controller[:2], strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(held.memory.memory, end.memory.memory)
    torch.testing.assert_close(held.reads, end.reads)


def test_trace_holds_one_picture_a_step():
    trace: dict[str, list[torch.Tensor]] = {}
    make()(stream(), trace=trace)
    assert {title: (len(steps), tuple(steps[0].shape)) for title, steps in trace.items()} == {
        "read weights": (5, (2, 1, 6)),
        "write weights": (5, (2, 1, 6)),
    }


def test_every_kind_of_channel_is_encoded_and_classes_come_in_groups():
    spec = StreamSpec(
        {"v": Vector(2), "t": Token(5), "i": Image(8, 8, encoder="conv"), "j": Image(4, 4)},
        Classes(5, groups=3),
    )
    model = MANN(LSTM, DENSE, spec)
    inputs = {
        "v": torch.randn(2, 3, 2),
        "t": torch.randint(0, 5, (2, 3)),
        "i": torch.rand(2, 3, 1, 8, 8),
        "j": torch.rand(2, 3, 1, 4, 4),
    }
    assert model(inputs).shape == (2, 3, 3, 5)


def test_tiny_images_fit_the_convolutional_encoder():
    model = MANN(LSTM, DENSE, StreamSpec({"i": Image(2, 3, encoder="conv")}, Classes(4)))
    assert model({"i": torch.rand(1, 2, 1, 2, 3)}).shape == (1, 2, 1, 4)


def test_errors_name_the_key_and_the_closest_match():
    with pytest.raises(ConfigError, match=r"encoder 'convv'[\s\S]*'conv'"):
        MANN(LSTM, DENSE, StreamSpec({"i": Image(8, 8, encoder="convv")}, Classes(4)))
    config = {"controller": LSTM, "memory": DENSE, "task": {"name": "copy"}}
    with pytest.raises(ConfigError, match=r"model\.feedbak[\s\S]*'feedback'"):
        assemble({**config, "model": {"feedbak": True}})
    with pytest.raises(ConfigError, match=r"memory 'dens'[\s\S]*'dense'"):
        assemble({**config, "memory": {"name": "dens"}})
    model, task = assemble(config)
    assert model.head.linear.out_features == task.spec.target.size


def test_a_trace_of_steps_that_run_at_once_shows_each_of_them():
    feeding, at_once = ({}, {})
    x = stream()
    make(feedback=False)(x, trace=at_once)
    assert {title: len(steps) for title, steps in at_once.items()} == {"read weights": 5, "write weights": 5}
    make()(x, trace=feeding)
    assert at_once["read weights"][0].shape == feeding["read weights"][0].shape
    model = make(memory={"name": "sparse", "slots": 8, "width": 4}, feedback=False)
    torch.testing.assert_close(model(x, trace={}), model(x))


NETWORK = {"name": "memory_network", "slots": 3, "width": 4, "hops": 2}


@pytest.mark.parametrize("memory", [DENSE, NETWORK, NETWORK | {"tying": "layer_wise"}, {"name": "none"}])
@pytest.mark.parametrize("feedback", [None, False])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("often", [0.2, 0.9])
def test_answers_are_the_logits_of_some_steps(memory, feedback, padded, often):
    model = make(memory=memory, feedback=feedback)
    inputs = stream(batch=4, steps=9)
    valid = (torch.arange(9) < torch.tensor([[9], [4], [1], [7]])).double() if padded else None
    asked = torch.rand(4, 9, generator=torch.Generator().manual_seed(2)) < often
    if valid is not None:
        asked &= valid.bool()

    def gradients(logits: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        logits.square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    wanted = model(inputs, valid)[asked]
    found = model.answers(inputs, valid, asked)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradients(found), gradients(wanted))


def test_answers_of_no_step():
    assert make(memory=NETWORK).answers(stream(), None, torch.zeros(2, 5, dtype=torch.bool)).shape == (0, 2)


@pytest.mark.parametrize("feedback", [True, False])
def test_a_direct_interface_is_what_the_controller_says(feedback):
    memory = {"name": "memory_network", "slots": 4, "width": 3, "hops": 1, "tying": "layer_wise"}
    controller = {"name": "lstm", "hidden": 9}
    model = make(controller, memory, interface="direct", feedback=feedback)
    assert isinstance(model.interface, torch.nn.Identity)
    model(stream()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.controller.parameters())


def test_a_direct_interface_needs_equal_widths():
    with pytest.raises(ConfigError, match="says 7 numbers, and the memory takes") as caught:
        make(interface="direct")
    assert "model.interface=linear" in str(caught.value)
    with pytest.raises(ConfigError, match="there is no 'straight'"):
        make(interface="straight")


def test_the_interface_can_start_larger():
    usual, larger = (make(interface_gain=gain).interface for gain in (1.0, 8.0))
    torch.testing.assert_close(larger.weight, 8 * usual.weight)
    torch.testing.assert_close(larger.bias, usual.bias)
    inside = {"name": "transformer", "width": 8, "heads": 2, "layers": 1, "memory_blocks": [0]}
    keys = {"name": "product_key", "slots": 16, "width": 8, "heads": 1, "knn": 2, "key_width": 4}
    usual, larger = (make(inside, keys, interface_gain=gain) for gain in (1.0, 8.0))
    said = [
        next(p for n, p in m.named_parameters() if n.endswith("interface.weight")) for m in (usual, larger)
    ]
    torch.testing.assert_close(said[1], 8 * said[0])
    with pytest.raises(ConfigError, match=r"interface_gain: -1"):
        make(interface_gain=-1.0)
    with pytest.raises(ConfigError, match=r"with model\.interface=direct"):
        make({"name": "lstm", "hidden": 9}, NETWORK, interface="direct", interface_gain=2.0)


@pytest.mark.parametrize("memory", [DENSE, {"name": "none"}], ids=["stepwise", "whole"])
@pytest.mark.parametrize("few", [True, False])
def test_dropout_is_of_what_goes_in_and_what_the_answer_is_made_of(memory, few):
    model, inputs, drops = make(memory=memory, dropout=0.5), stream(8, 20), []
    given = model.encoder(inputs)
    model.drop.register_forward_hook(lambda _, x, dropped: drops.append((x[0], dropped)))
    asked = torch.ones(8, 20, dtype=torch.bool)

    def answer() -> torch.Tensor:
        drops.clear()
        return model.answers(inputs, None, asked) if few else model(inputs)

    first = answer()
    (x, entered), (_, known) = drops
    torch.testing.assert_close(x, given)
    assert 0.4 < (entered == 0).double().mean() < 0.6
    assert torch.equal(model.head(known).reshape(first.shape), first)
    # The same of what comes out, and something else of what went in: it is the dropped input that is used.
    model.head.register_forward_pre_hook(lambda *_: (torch.ones_like(known) * drops[1][0].sum(),))
    assert not torch.equal(answer(), answer())
    model.eval()
    assert torch.equal(answer(), answer())


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_impossible_dropout_names_the_key(share):
    with pytest.raises(ConfigError, match=rf"model\.dropout: {share} is not allowed"):
        make(dropout=share)


@pytest.mark.parametrize("memory", [DENSE, NETWORK], ids=["stepwise", "whole"])
def test_answers_can_be_made_of_what_is_read_alone(memory):
    model, inputs = make(memory=memory, readout="reads"), stream()
    assert model.head.linear.in_features == model.memory.read_size
    seen = {}
    model.head.register_forward_pre_hook(lambda _, known: seen.update(known=known[0]))
    logits = model(inputs)
    _, reads, _ = model._all_steps(model.encoder(inputs), model.init_state(2, inputs["x"]), None)
    torch.testing.assert_close(seen["known"], reads)
    asked = torch.tensor([[True, False, True, True, False]] * 2)
    torch.testing.assert_close(model.answers(inputs, None, asked), logits[asked])


def test_readouts_that_cannot_be_are_explained():
    with pytest.raises(ConfigError, match=r"reads is not allowed with memory=none"):
        make(memory={"name": "none"}, readout="reads")
    with pytest.raises(ConfigError, match=r"model\.readout: there is no 'read'(.|\n)*both"):
        make(readout="read")
