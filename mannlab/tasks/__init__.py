"""The built-in tasks.

In a checkout they lie in the folder ``tasks/`` at the root, written with the public plugin API only;
in an installed package they lie here.
"""

from pathlib import Path

_root = Path(__file__).resolve().parents[2] / "tasks"
if _root.is_dir() and (_root.parent / "pyproject.toml").is_file():
    __path__.append(str(_root))
