"""Docstrings name things by roles (:class:`X`); on the site the name alone is shown, as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?\.?([^`]+)`")


def plain(text: str) -> str:
    """A docstring without roles."""
    return ROLE.sub(r"`\1`", text)


class Roles(Extension):
    """Takes roles out of every docstring that is collected."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
