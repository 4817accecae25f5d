"""Embeddings of symbols: their width, and one table for what comes in and what goes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mannlab.contracts import Bits, Classes, StreamSpec, Token, Vector
from mannlab.errors import ConfigError
from mannlab.model import MANN, assemble

TEXT = StreamSpec({"token": Token(11)}, Classes(11))


def make(spec: StreamSpec = TEXT, **options: Any) -> MANN:
    torch.manual_seed(0)
    return MANN({"name": "lstm", "hidden": 8}, {"name": "dense", "slots": 6, "width": 4}, spec, **options)


def test_the_width_is_an_option() -> None:
    assert make().encoder.output_size == 64
    narrow = make(embedding_width=5)
    assert narrow.encoder.layers["token"].weight.shape == (11, 5)
    assert narrow({"token": torch.randint(11, (2, 3))}).shape == (2, 3, 1, 11)


def test_tied_is_one_parameter_that_gets_both_gradients() -> None:
    model = make(tied_embeddings=True, embedding_width=6)
    table = model.encoder.layers["token"].weight
    assert model.head.linear.weight is table
    assert sum(parameter.shape == (11, 6) for parameter in model.parameters()) == 1
    tokens = torch.tensor([[1, 2]])
    model({"token": tokens})[..., 7].sum().backward()
    rows = table.grad.abs().sum(1) > 0
    assert rows.nonzero().flatten().tolist() == [1, 2, 7], "as an input, and as an output"


def test_tied_logits_are_products_with_embeddings() -> None:
    model = make(tied_embeddings=True, embedding_width=6)
    x = torch.randn(2, 3, 8 + model.memory.read_size)
    table = model.encoder.layers["token"].weight
    expected = model.head.project(x) @ table.T + model.head.linear.bias
    assert torch.allclose(model.head(x)[:, :, 0], expected, atol=1e-6)
    given = model.encoder({"token": torch.tensor([[4]])})[0, 0]
    assert torch.allclose(given, table[4] * 6**0.5)


def test_it_stays_tied_when_loaded_and_moved() -> None:
    one, other = make(tied_embeddings=True), make(tied_embeddings=True).double()
    with torch.no_grad():
        one.encoder.layers["token"].weight += 1
    other.load_state_dict(one.state_dict())
    assert other.head.linear.weight is other.encoder.layers["token"].weight
    tokens = {"token": torch.tensor([[1, 5]])}
    assert torch.allclose(one(tokens).double(), other(tokens), atol=1e-4)


@pytest.mark.parametrize(
    "spec",
    [
        StreamSpec({"token": Token(11)}, Classes(12)),
        StreamSpec({"token": Token(11)}, Classes(11, groups=2)),
        StreamSpec({"token": Token(11), "x": Vector(2)}, Classes(11)),
        StreamSpec({"x": Vector(2)}, Bits(2)),
    ],
)
def test_other_streams_cannot_be_tied(spec: StreamSpec) -> None:
    with pytest.raises(ConfigError, match=r"model\.tied_embeddings"):
        make(spec, tied_embeddings=True)


def test_bad_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.embedding_width: 0"):
        make(embedding_width=0)
    with pytest.raises(ConfigError, match="Did you mean 'tied_embeddings'"):
        assemble(
            {
                **{kind: {"name": "none"} for kind in ("memory",)},
                "controller": {"name": "lstm"},
                "task": {"name": "copy"},
                "model": {"tied_embedings": True},
            }
        )
