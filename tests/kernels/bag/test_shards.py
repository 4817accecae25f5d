"""Which part of a table is whose; what travels is tested with real processes, in test_ddp.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mannlab.errors import ConfigError
from mannlab.kernels.bag import RowTable
from mannlab.kernels.bag.shards import Shards
from mannlab.training.tables import divide, divided


@pytest.mark.parametrize("by", ["dim", "row"])
def test_parts_make_the_whole(by: Any) -> None:
    table = torch.arange(24.0).reshape(6, 4)
    parts = [Shards(by, rank, 2, 6).part(table) for rank in range(2)]
    assert torch.equal(torch.cat(parts, parts and Shards(by, 0, 2, 6).axis), table)
    counters = torch.arange(6)
    expected = counters[3:] if by == "row" else counters
    assert torch.equal(Shards(by, 1, 2, 6).part(counters), expected)


def test_rows_are_found_in_the_part_that_has_them() -> None:
    local, inside = Shards("row", 1, 3, 6).mine(torch.tensor([[0, 2], [3, 5]]))
    assert inside.tolist() == [[False, True], [True, False]]
    assert local.tolist() == [[0, 0], [1, 0]]


def test_a_table_is_divided_once_and_only_among_several() -> None:
    torch.manual_seed(0)
    table = RowTable(6, 4, divide="row")
    whole = table.weight.detach().clone()
    divide(torch.nn.Sequential(table), 0, 1)
    assert not divided(table)
    for _ in range(2):
        divide(torch.nn.Sequential(table), 1, 2)
    assert torch.equal(table.weight.detach(), whole[3:])
    assert divided(table)
    table.load_state_dict({"weight": whole * 2})
    assert torch.equal(table.weight.detach(), whole[3:] * 2)


def test_parts_that_would_not_be_equal_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory.width: 4 cannot be divided among 3 devices"):
        divide(RowTable(6, 4, divide="dim"), 0, 3)
    with pytest.raises(ConfigError, match=r"memory.slots: 6 cannot be divided among 4"):
        divide(RowTable(6, 4, divide="row"), 0, 4)
