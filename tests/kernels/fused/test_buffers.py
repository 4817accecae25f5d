"""Room for histories: given back, used again, bounded."""

from __future__ import annotations

import pytest
import torch

from mannlab.kernels.fused import buffers
from mannlab.kernels.fused.buffers import History


@pytest.fixture(autouse=True)
def empty():
    buffers.forget()
    yield
    buffers.forget()


def test_arrays_have_their_shapes_and_share_memory_with_tensors():
    history = History({"a": (2, 3), "b": (5,)}, torch.float64)
    history.tensors["a"].fill_(1)
    history.tensors["b"].fill_(2)
    assert history.arrays["a"].tolist() == [[1.0] * 3] * 2
    assert history.arrays["b"].tolist() == [2.0] * 5


def test_room_is_used_again_and_not_while_it_is_held():
    first = History({"a": (100,)}, torch.float32)
    second = History({"a": (100,)}, torch.float32)
    places = {first.tensors["a"].data_ptr(), second.tensors["a"].data_ptr()}
    assert len(places) == 2
    del first, second
    third = History({"a": (90,)}, torch.float32)
    assert third.tensors["a"].data_ptr() in places


def test_a_small_history_does_not_take_a_large_room():
    large = History({"a": (10_000,)}, torch.float32)
    place = large.tensors["a"].data_ptr()
    del large
    assert History({"a": (10,)}, torch.float32).tensors["a"].data_ptr() != place


def test_little_is_kept():
    held = [History({"a": (n + 1,)}, torch.float32) for n in range(20)]
    del held
    assert len(buffers._free) == buffers.MOST_KEPT
    assert min(map(len, buffers._free)) > 0


def test_room_of_an_evaluation_serves_training():
    with torch.inference_mode():
        evaluated = History({"a": (40,)}, torch.float32)
        evaluated.tensors["a"].fill_(1)
    room = evaluated.arrays["a"].ctypes.data
    del evaluated
    trained = History({"a": (40,)}, torch.float32)
    trained.tensors["a"].add_(1)
    assert trained.arrays["a"].ctypes.data == room
