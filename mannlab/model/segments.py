"""Running a controller that hears its memory once per segment: attention inside, memory between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mannlab.contracts import Controller, Memory, hold
from mannlab.model.unroll import Advance, RunState, Trace, Watch, watching


def segmented(
    controller: Controller[Any],
    memory: Memory[Any],
    interface: Callable[[Tensor], Tensor],
    x: Tensor,
    state: RunState,
    valid: Tensor | None = None,
    trace: Trace | Watch | None = None,
    advance: Advance | None = None,
) -> tuple[Tensor, Tensor, RunState]:
    """As :func:`mannlab.model.unroll.stepwise`, with one step of the memory for ``controller.segment`` steps.

    All steps of a segment hear the reads of the segment before; what the controller says at its last step is
    what the memory hears. A segment that is not full yet goes on in the next call.
    """
    hidden, read_out, step, watch = [], [], advance or memory.step, watching(trace)
    controlled, remembered, reads = state
    start = 0
    for length, full in _parts(controller, controlled, x, valid):
        part = slice(start, start + length)
        start += length
        real = None if valid is None else valid[:, part]
        given = reads.unsqueeze(1).expand(-1, length, -1)
        h, controlled = controller.sequence(torch.cat([x[:, part], given], dim=-1), controlled, real)
        hidden.append(h)
        if full is None:
            read_out.append(given)
        else:
            where = _where(full, real)
            new_reads, remembered = step(interface(h[:, -1]), remembered, where)
            reads = new_reads if where is None else hold(where, new_reads, reads)
            read_out.append(torch.cat([given[:, :-1], reads.unsqueeze(1)], dim=1))
        if watch is not None:
            watch.step(memory, remembered, length)
    return torch.cat(hidden, 1), torch.cat(read_out, 1), RunState(controlled, remembered, reads)


def _where(full: Tensor | bool, real: Tensor | None) -> Tensor | None:
    """``[B]``, the rows whose segment ends here, or None for all."""
    if isinstance(full, bool):
        return None if real is None else real[:, -1]
    return full.to(torch.float32) if real is None else real[:, -1] * full


def _parts(
    controller: Controller[Any], state: Any, x: Tensor, valid: Tensor | None
) -> Iterator[tuple[int, Tensor | bool | None]]:
    """Lengths of the parts to run in one piece, and which rows' segments end with each; None: no row's."""
    size, steps = controller.segment, x.shape[1]
    done = controller.progress(state) % size
    first = int(done[0]) if len(done) else 0
    if bool((done == first).all()):
        left = size - first
        while steps > 0:
            length = min(left, steps)
            yield length, True if length == left else None
            steps, left = steps - length, size
        return
    # Rows of different progress, as padding leaves them.
    for t in range(steps):
        done = done + (1 if valid is None else valid[:, t])
        full = (done % size == 0) & (done > 0)
        yield 1, full if bool(full.any()) else None
