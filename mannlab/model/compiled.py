"""A memory's step, compiled by torch."""

from __future__ import annotations

import logging
import time
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mannlab.contracts import Memory, hold

log = logging.getLogger(__name__)

# Of ``torch.compile``.
COMPILER = "inductor"


class _Step:
    """``forward`` of a class of memories, compiled when it is first called; as it is where that fails."""

    def __init__(self, kind: type[Memory[Any]], compiler: str) -> None:
        self.kind, self.ready = kind, False
        # The compiler's own doing, when it looks whether a state has a gradient.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        # Of the class: what is compiled holds no memory, which may be copied and collected.
        self.function: Any = torch.compile(kind.forward, backend=compiler)

    def __call__(self, memory: Memory[Any], interface: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.ready:
            return self._result(memory, interface, state)
        began = time.perf_counter()
        try:
            result = self._result(memory, interface, state)
        # The compiler's own: which it is depends on what is missing.
        except torch._dynamo.exc.TorchDynamoException as error:
            why = " ".join(str(error).strip().partition("\n\n")[0].split())
            log.warning("model.backend=compiled runs step by step: torch.compile fails: %s", why)
            self.function = self.kind.forward
            result = self._result(memory, interface, state)
        else:
            log.info("Compiled %s in %.0f s.", self.kind.__name__, time.perf_counter() - began)
        self.ready = True
        return result

    def _result(self, memory: Memory[Any], interface: Tensor, state: Any) -> tuple[Tensor, Any]:
        result: tuple[Tensor, Any] = self.function(memory, interface, state)
        return result


@cache
def _step_of(kind: type[Memory[Any]], compiler: str) -> _Step:
    return _Step(kind, compiler)


def advance(memory: Memory[Any], interface: Tensor, state: Any, valid: Tensor | None) -> tuple[Tensor, Any]:
    """As ``Memory.step``, of a memory whose states may be used again."""
    reads, new = _step_of(type(memory), COMPILER)(memory, interface, state)
    return reads, new if valid is None else hold(valid, new, state)
