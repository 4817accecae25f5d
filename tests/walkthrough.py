"""Does what a document says, as a reader would: in an environment of its own, block by block.

- ``bash`` blocks are run; the folder they end in is where the next one begins;
- blocks of any language with ``title="path"`` are written to that path;
- other ``python`` blocks are run;
- each line of a ``text`` block must be in the output of the block before it, up to an ellipsis.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    title: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    for found in BLOCK.finditer(text):
        yield Block(found[1], found[2] or "", found[3])


def environment(folder: Path, root: Path) -> dict[str, str]:
    """Variables for processes in a virtual environment of their own, with this checkout, without network."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # What is installed here is seen there, pip included; what is installed there goes away with the folder.
    (site / "seen.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {
        **os.environ,
        **offline,
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(root),
        "VIRTUAL_ENV": str(folder),
    }


class Reader:
    """Follows a document.

    Args:
        folder: where it starts.
        variables: of the processes.
    """

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.variables, self.said = folder, variables, ""

    def follow(self, text: str) -> None:
        """Do what the document says.

        Raises:
            AssertionError: a command failed, or said something else than the document.
        """
        for block in blocks(text):
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "bash":
                self._run(["bash", "-euo", "pipefail", "-c", f"{block.text}\npwd > '{self._place}'"])
                self.folder = Path(self._place.read_text().strip())
            elif block.language == "python":
                self._run(["python", "-c", block.text])
            elif block.language == "text":
                self._compare(block.text)

    @property
    def _place(self) -> Path:
        return Path(self.variables["VIRTUAL_ENV"]) / "place"

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=600
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, f"{command[-1]}\n{self.said}"

    def _compare(self, text: str) -> None:
        said = " ".join(self.said.split())
        for line in text.splitlines():
            wanted = " ".join(line.partition("...")[0].split())
            assert wanted in said, f"the document says '{line}', the program\n{self.said}"
