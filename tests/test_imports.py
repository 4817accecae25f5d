"""Who may import whom: the rooms of the house, held by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BELOW_TRAINING = {
    "errors",
    "files",
    "trees",
    "progress",
    "draws",
    "registry",
    "contracts",
    "scoring",
    "kernels",
    "datasets",
    "plots",
    "memory",
    "controller",
    "tasks",
    "model",
    "checks",
}
# A room may also import itself. Rooms that are not here (compose, cli, __main__, ...) may import any.
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "trees": set(),
    "progress": set(),
    "draws": set(),
    "registry": {"errors"},
    "contracts": {"draws", "errors", "kernels"},
    "scoring": {"contracts", "errors"},
    "kernels": set(),
    "datasets": {"errors", "files", "progress"},
    "plots": set(),
    "memory": {"contracts", "registry", "errors", "kernels", "plots"},
    "controller": {"contracts", "registry", "errors", "kernels"},
    "tasks": {"contracts", "registry", "errors", "draws", "scoring", "datasets", "plots"},
    "model": {"contracts", "registry", "errors", "kernels", "progress"},
    "checks": {"contracts", "registry", "errors", "draws", "model"},
    "training": BELOW_TRAINING,
    "inspection": BELOW_TRAINING | {"training"},
    "report": {"errors", "trees", ""},
}
OUTER_ROOMS = {"", "__main__", "cli", "compose", "hydra_plugins", "sweep"}
HYDRA_ROOMS = {"__main__", "cli", "compose", "_hydra", "hydra_plugins", "sweep"}
# On the path of --help, --cfg job and completion.
LIGHT_ROOMS = {"", "__main__", "cli", "compose", "_hydra", "hydra_plugins", "sweep"}
LIGHT_ROOMS |= {"registry", "errors", "files", "trees"}
HEAVY = {"torch", "torchvision", "lightning", "torchmetrics", "matplotlib", "tensorboard"}


@dataclass(frozen=True)
class Import:
    """One import: what, where, and whether it runs when the module is imported."""

    target: str
    line: int
    at_load: bool


def imports(source: str) -> Iterator[Import]:
    """Every import of a module; those under ``if TYPE_CHECKING`` or in a function do not run at load."""

    def visit(node: ast.AST, at_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_load)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, at_load)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if typing_only or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            at_load = False
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_load)

    return visit(ast.parse(source), True)


def module_name(path: Path) -> str:
    """``tasks/copy.py`` is ``mannlab.tasks.copy``, as it is in the installed package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "tasks":
        parts.insert(0, "mannlab")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """``mannlab.memory.dense`` is in ``memory``; ``mannlab`` itself in ``""``."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "mannlab" else first


MODULES = {
    module_name(path): path
    for folder in ("mannlab", "tasks", "hydra_plugins")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def ours(target: str) -> str | None:
    """The module of ours that an import reaches: ``mannlab.errors.choices`` is ``mannlab.errors``."""
    while target:
        if target in MODULES:
            return target
        target = target.rpartition(".")[0]
    return None


def where(module: str, found: Import) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{found.line} imports {found.target}"


def test_the_source_is_found() -> None:
    assert {"mannlab", "mannlab.registry", "mannlab.tasks.copy", "mannlab.memory.dense"} <= set(MODULES)


def test_every_room_has_a_rule() -> None:
    rooms = {room(module) for module in MODULES}
    assert rooms <= set(MAY_IMPORT) | OUTER_ROOMS | HYDRA_ROOMS


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_only_what_lies_below(module: str) -> None:
    allowed = MAY_IMPORT.get(room(module))
    if allowed is None:
        return
    for found in imports(MODULES[module].read_text()):
        reached = ours(found.target)
        if reached is not None:
            assert room(reached) in allowed | {room(module)}, where(module, found)


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_stay_in_their_rooms(module: str) -> None:
    for found in imports(MODULES[module].read_text()):
        package = found.target.partition(".")[0]
        if package in ("lightning", "pytorch_lightning", "torchmetrics"):
            assert room(module) == "training", where(module, found)
        if package in ("hydra", "omegaconf"):
            assert room(module) in HYDRA_ROOMS, where(module, found)
        if package == "tasks":
            pytest.fail(f"{where(module, found)}: say mannlab.tasks, which is there when installed too")


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in LIGHT_ROOMS])
def test_start_up_imports_nothing_heavy(module: str) -> None:
    # Not only this module: whatever it imports at load, and the packages on the way there.
    seen: set[str] = set()
    todo = [module]
    while todo:
        current = todo.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        todo.append(current.rpartition(".")[0])
        for found in imports(MODULES[current].read_text()):
            if found.at_load:
                assert found.target.partition(".")[0] not in HEAVY, f"{module}: {where(current, found)}"
                todo.append(ours(found.target) or "")


def test_imports_are_told_apart() -> None:
    source = """
from typing import TYPE_CHECKING
import torch.nn
if TYPE_CHECKING:
    import lightning
try:
    from mannlab.errors import choices
except ImportError:
    pass
def late():
    import hydra
"""
    assert [(found.target, found.at_load) for found in imports(source)] == [
        ("typing.TYPE_CHECKING", True),
        ("torch.nn", True),
        ("lightning", False),
        ("mannlab.errors.choices", True),
        ("hydra", False),
    ]


def test_names_lead_to_modules() -> None:
    assert ours("mannlab.errors.choices") == "mannlab.errors"
    assert ours("mannlab.registry") == "mannlab.registry"
    assert ours("torch.nn") is None
    assert [room(name) for name in ("mannlab", "mannlab.errors", "mannlab.memory.dense")] == [
        "",
        "errors",
        "memory",
    ]
