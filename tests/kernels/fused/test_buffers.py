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


def test_room_given_back_in_the_middle_of_a_search():
    """As threads and the garbage collector do, at any line."""
    small, fitting = History({"a": (16,)}, torch.float32), History({"a": (96,)}, torch.float32)
    others = [History({"a": (4096,)}, torch.float64) for _ in range(buffers.MOST_KEPT - 1)]
    place = fitting.tensors["a"].data_ptr()
    del small, fitting

    class Float32:
        def __eq__(self, other):
            others.clear()
            return other == torch.float32

        __hash__ = None

    found = History({"a": (96,)}, Float32())
    assert found.tensors["a"].dtype == torch.float32
    assert found.tensors["a"].data_ptr() == place
    assert all(room.data_ptr() != place for room in buffers._free)


def test_room_that_another_takes_first_is_left_to_it():
    History({"a": (96,)}, torch.float32)
    taken = []

    class Float32:
        def __eq__(self, other):
            taken.append(History({"a": (96,)}, torch.float32))
            return other == torch.float32

        __hash__ = None

    with pytest.raises(TypeError, match="dtype"):  # it turns to fresh memory, of a type that torch knows
        History({"a": (96,)}, Float32())
    assert len(taken) == 1


def test_room_of_an_evaluation_serves_training():
    with torch.inference_mode():
        evaluated = History({"a": (40,)}, torch.float32)
        evaluated.tensors["a"].fill_(1)
    room = evaluated.arrays["a"].ctypes.data
    del evaluated
    trained = History({"a": (40,)}, torch.float32)
    trained.tensors["a"].add_(1)
    assert trained.arrays["a"].ctypes.data == room
