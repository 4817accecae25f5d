"""Whole sequences as CUDA graphs: the host launches one thing in place of thousands.

A graph is of one shape. Sequences are padded to one of a few lengths, a shape is recorded when it comes for
the second time, and those least used are forgotten.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mannlab.contracts import cut
from mannlab.kernels.nodes import differentiable_once
from mannlab.kernels.recording import Function, Recording
from mannlab.model.agreement import Recorded, agrees
from mannlab.model.recompute import pack
from mannlab.model.unroll import Advance, RunState, stepwise

log = logging.getLogger(__name__)

# Of each the history of a sequence stays on the device.
MOST_GRAPHS = 16
# Longer sequences would have graphs of a hundred thousand launches, which take long to make.
MOST_STEPS = 1024
EXACT_LENGTHS = 2
MOST_SEEN = 1000


class Lengths:
    """Which lengths sequences are padded to.

    The first few that come are kept as they are: a task of one length pays no padding. Others go to the next
    of four lengths between powers of two (8, 10, 12, 14, 16, 20, ...): padding adds less than a quarter.
    """

    def __init__(self, exact: int = EXACT_LENGTHS) -> None:
        self._most, self._exact = exact, set[int]()

    def fit(self, steps: int) -> int:
        if steps not in self._exact and len(self._exact) < self._most:
            self._exact.add(steps)
        return steps if steps in self._exact else bucket(steps)


def bucket(steps: int) -> int:
    """The least of the lengths above that ``steps`` fits in."""
    grain = max(1, 1 << max(0, (steps - 1).bit_length() - 3))
    return -(-steps // grain) * grain


class _Turn:
    """A forward pass that may be followed by its backward pass."""

    spent = False


class Entry:
    """A recorded function, and whose history lies in it."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self._turn: Callable[[], _Turn | None] = lambda: None

    def busy(self) -> bool:
        """Whether a forward pass waits for its backward pass, which another one would spoil."""
        turn = self._turn()
        return turn is not None and not turn.spent

    def begin(self) -> _Turn:
        turn = _Turn()
        self._turn = weakref.ref(turn)
        return turn

    def is_on(self, turn: _Turn) -> bool:
        return self._turn() is turn


class Graphs:
    """Recorded sequences, by shape. Copies of it start empty.

    Args:
        record: makes a recording of a function, its inputs and its weights.
        devices: types of device that it is for.
        most: how many are kept.
    """

    def __init__(
        self,
        record: Callable[[Function, Sequence[Tensor], Sequence[Tensor]], Recorded] = Recording,
        devices: Sequence[str] = ("cuda",),
        most: int = MOST_GRAPHS,
    ) -> None:
        self._record, self.devices, self._most = record, tuple(devices), most
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.lengths = Lengths()
        self._seen: set[Hashable] = set()
        self._said: set[str] = set()
        self._checked: set[bool] = set()
        self._broken = False

    def __deepcopy__(self, memo: Any) -> Graphs:
        return Graphs(self._record, self.devices, self._most)

    def __reduce__(self) -> Any:
        return Graphs, (self._record, self.devices, self._most)

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.info("CUDA graphs: %s run step by step.", what)

    def refuses(self, parts: Sequence[Any], steps: int) -> bool:
        """Whether such a sequence has to run step by step, whatever its shape."""
        modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
        if self._broken or steps == 0:
            return True
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules):
            self._say("sequences of modules that someone watches (hooks)")
            return True
        if steps > MOST_STEPS:
            self._say(f"sequences of more than {MOST_STEPS} steps")
            return True
        # Looking for NaN waits for the device.
        return (
            torch.is_anomaly_enabled()
            or torch.compiler.is_compiling()
            or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
        )

    def call(
        self, key: Hashable, function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> list[Tensor] | None:
        """``function(*inputs, *weights)``, replayed; None if it is to be called itself this time.

        Args:
            key: whatever else but the inputs' shapes, types and need of gradients makes it another function.
            function: see :class:`mannlab.kernels.recording.Recording`.
            inputs: tensors.
            weights: whatever else wants a gradient; they stay where they lie as long as ``key`` is the same.
        """
        like = tuple((part.shape, part.dtype, part.device, part.requires_grad) for part in inputs)
        key = (key, like, torch.is_grad_enabled())
        entry = self.entries.get(key)
        if entry is None:
            # Many a shape comes once: the last batch of a set, an example.
            if key not in self._seen:
                if len(self._seen) > MOST_SEEN:
                    self._seen.clear()
                self._seen.add(key)
                return None
            entry = self._make(function, inputs, weights)
            if entry is None:
                return None
            self.entries[key] = entry
            while len(self.entries) > self._most:
                self.entries.popitem(last=False)
        self.entries.move_to_end(key)
        if entry.busy():
            self._say("sequences that begin while others of their shape wait for their backward pass")
            return None
        if not torch.is_grad_enabled():
            return [out.clone() for out in entry.recorded.forward(inputs)]
        return list(_Replayed.apply(entry, len(inputs), *inputs, *weights))

    def _make(self, function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Entry | None:
        began, why = time.perf_counter(), ""
        try:
            recorded = self._record(function, inputs, weights)
            # The first alone, with and without gradients: what a machine gets wrong, it gets wrong there.
            grad = torch.is_grad_enabled()
            if grad not in self._checked and not agrees(recorded, function, inputs, weights):
                why = "a replay gives something else than the steps themselves; please report it"
            self._checked.add(grad)
        # Whatever it is: run step by step it is an error in its own place, or none.
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if why:
            self._broken = True
            self.entries.clear()
            log.warning("CUDA graphs: sequences run step by step: %s", why)
            return None
        if not self.entries:
            seconds, shape = time.perf_counter() - began, list(inputs[0].shape)
            log.info("CUDA graphs: recorded a sequence of shape %s in %.1f s; others follow.", shape, seconds)
        return Entry(recorded)


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entry: Entry, count: int, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.entry, ctx.turn = entry, entry.begin()
        # As saved tensors, so that weights that change before the backward pass are noticed.
        ctx.save_for_backward(*parts[count:])
        return tuple(out.clone() for out in entry.recorded.forward(parts[:count]))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *ons: Tensor) -> Any:
        _ = ctx.saved_tensors
        if not ctx.entry.is_on(ctx.turn):
            raise RuntimeError(
                "The history of this sequence is gone: another one of its shape has run since its first "
                "backward pass. Go backward again before that, or use model.backend=eager."
            )
        again, ctx.turn.spent = ctx.turn.spent, True
        found = ctx.entry.recorded.backward(ons, again)
        return None, None, *(None if grad is None else grad.clone() for grad in found)


@contextmanager
def _using(parts: Sequence[nn.Module], others: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Let modules work with other tensors in the place of some parameters."""
    swapped = []
    for module in chain.from_iterable(part.modules() for part in parts):
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter in others:
                swapped.append((module._parameters, name, parameter))
    try:
        for held, name, parameter in swapped:
            held[name] = others[parameter]  # type: ignore[assignment]
        yield
    finally:
        for held, name, parameter in swapped:
            held[name] = parameter


def sequence(
    graphs: Graphs,
    controller: Any,
    memory: Any,
    interface: nn.Module,
    x: Tensor,
    state: RunState,
    valid: Tensor | None,
    advance: Advance | None,
) -> tuple[Tensor, Tensor, RunState] | None:
    """As :func:`mannlab.model.unroll.stepwise`; None if it is to run step by step this time.

    Args:
        graphs: what is recorded.
        advance: makes the memory's steps; None: the memory. Another one for another kind of steps.
    """
    parts = (controller, memory, interface)
    steps = x.shape[1]
    if graphs.refuses(parts, steps):
        return None
    length = graphs.lengths.fit(steps)
    if valid is None and length > steps:
        valid = x.new_ones(x.shape[:2])
    inputs = [pad(x, (0, 0, 0, length - steps))]
    if valid is not None:
        inputs.append(pad(valid.bool(), (0, length - steps)))
    inputs += pack(state)[0]
    _, unpack = pack(cut(state))
    padded, kind = valid is not None, x.device.type
    mixed, low = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def function(x: Tensor, *rest: Tensor) -> list[Tensor]:
        given, own_weights = rest[: len(inputs) - 1], rest[len(inputs) - 1 :]
        real, leaves = (given[0], given[1:]) if padded else (None, given)
        # What the cache of casts holds would belong to one recording, and be used outside.
        with (
            torch.autocast(kind, dtype=low, enabled=mixed, cache_enabled=False),
            _using(parts, dict(zip(wanted, own_weights, strict=True))),
        ):
            hidden, reads, after = stepwise(*parts, x, unpack(leaves), real, None, advance)
        return [hidden, reads, *pack(after)[0]]

    # Once each, in the order that they are found in.
    weights = list(
        dict.fromkeys(chain.from_iterable((*part.parameters(), *part.buffers()) for part in parts))
    )
    # Where weights lie is part of a recording.
    places = tuple((weight.data_ptr(), weight.requires_grad) for weight in weights)
    key = (places, padded, advance is None, controller.training, memory.training, mixed, low)
    wanted = [weight for weight in weights if weight.requires_grad]
    found = graphs.call(key, function, inputs, wanted)
    if found is None:
        return None
    hidden, reads, *leaves = found
    return hidden[:, :steps], reads[:, :steps], unpack(leaves)
