"""Memory-augmented neural networks: any controller, any memory, any task, by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mannlab.model import assemble
    from mannlab.registry import build, register
    from mannlab.training.saved import load

__all__ = ["__version__", "assemble", "build", "load", "register"]
__version__ = "0.1.0"

# Imported when asked for: torch takes seconds, which --help and tab completion do not have.
_HOMES = {
    "assemble": "mannlab.model",
    "build": "mannlab.registry",
    "load": "mannlab.training.saved",
    "register": "mannlab.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mannlab' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
