"""Nested mappings, such as configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "", empty: bool = False) -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; tuples become lists, empty mappings are left out or kept."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and (value or not empty):
            found |= flat(value, f"{name}.", empty)
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found
