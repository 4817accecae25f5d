"""Rows of a memory as labelled points."""

from __future__ import annotations

import torch

from mannlab.contracts import Batch, StreamSpec, Token, Vector
from mannlab.contracts import Bits as BitTarget
from mannlab.training.points import MOST, chosen, inputs_said, labels_of


def test_of_many_rows_those_that_heads_looked_at_are_shown() -> None:
    weights = torch.zeros(3, 2, 5000)
    weights[1, 0, 4321] = 0.5
    weights[2, 1, 7] = 0.4
    rows = chosen(5000, {"read weights": weights})
    assert len(rows) == MOST
    assert {7, 4321} <= set(rows.tolist())
    assert rows.tolist() == sorted(rows.tolist())
    assert chosen(9, {}).tolist() == list(range(9))
    assert len(chosen(5000, {"read weights": weights[..., :10]})) == MOST


def test_labels_say_when_a_row_was_written_and_what_came_in() -> None:
    writing = torch.zeros(3, 1, 4)
    writing[2, 0, 1] = 0.9
    writing[0, 0, 3] = 0.04  # too little
    labels = labels_of(
        torch.tensor([1, 3]), 4, {"write weights": writing}, ["a", "b", "c"], {"half": list("wxyz")}
    )
    assert labels == {
        "when this came in": ["c", "-"],
        "written at step": ["2", "never"],
        "half": ["x", "z"],
        "row": ["1", "3"],
    }
    assert next(iter(labels)) == "when this came in"


def test_bits_and_symbols_can_be_said_and_real_numbers_cannot() -> None:
    def said(**inputs: torch.Tensor) -> list[str]:
        kinds = {
            key: Token(9) if tensor.dtype == torch.int64 else Vector(tensor.shape[-1])
            for key, tensor in inputs.items()
        }
        batch = Batch(inputs, torch.zeros(1, 2, 1), torch.ones(1, 2))
        return inputs_said(StreamSpec(kinds, BitTarget(1)), batch)

    bits = torch.tensor([[[1.0, 0, 1], [0, 0, 1]]])
    assert said(x=bits) == ["101", "001"]
    assert said(x=bits, word=torch.tensor([[4, 8]])) == ["101 4", "001 8"]
    assert said(x=bits / 2) == ["", ""]
