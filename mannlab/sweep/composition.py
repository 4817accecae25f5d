"""How the configuration of one more job is made, in a form that can be stored and used again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mannlab import compose


@dataclass
class Composition:
    """A command line without what differs between the jobs.

    Attributes:
        config_dir: the folder of the primary configuration.
        config_name: its name.
        overrides: those that all jobs share, Hydra's own among them.
        space: overrides with several values, or a range.
        folders: of further yaml files (``--config-dir``).
        where: the folder that relative paths are meant from.
    """

    config_dir: str
    config_name: str = "config"
    overrides: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    space: list[str] = field(default_factory=list)
    where: str = field(default_factory=os.getcwd)

    def plain(self) -> dict[str, Any]:
        """As plain containers."""
        return asdict(self)

    def prepare(self) -> None:
        """Make plugins and resolvers known, in a program that has not done so."""
        os.chdir(self.where)
        compose.find_launcher()
        compose.register_resolvers()
        compose.publish([*self.overrides, *(f"--config-dir={folder}" for folder in self.folders)])

    def compose(self, overrides: Sequence[str]) -> Any:
        """The configuration of a job, with Hydra's own node."""
        from hydra import compose as composed
        from hydra import initialize_config_dir

        given = [*self.overrides, *overrides]
        if self.folders:
            given.append(f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in self.folders)}]")
        with aside(), initialize_config_dir(self.config_dir, **compose.hydra_base()):
            return composed(self.config_name, overrides=given, return_hydra_config=True)


@contextmanager
def aside() -> Iterator[None]:
    """Inside, Hydra is as if it had not been started: a sweep composes in the midst of Hydra's own run."""
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        if outer is not None:
            GlobalHydra.instance().initialize(outer)
