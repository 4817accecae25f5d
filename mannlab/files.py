"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which takes the place of ``path`` in one move at the end.

    After an error, or a Ctrl-C in the midst of writing, ``path`` is as it was. Its folder is made.

    Raises:
        OSError: the place cannot be written.
    """
    # Not even two threads of two processes have the same.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
