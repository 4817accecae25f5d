"""No memory: nothing in, nothing out."""

from __future__ import annotations

import torch

from mannlab.memory.none import NoMemory


def test_it_reads_nothing_and_remembers_nothing():
    memory = NoMemory()
    state = memory.init_state(3)
    reads, after = memory.sequence(torch.zeros(3, 7, 0), state)
    assert reads.shape == (3, 7, 0)
    assert after == state
    assert memory(torch.zeros(3, 0), state)[0].shape == (3, 0)
    assert not list(memory.parameters())
