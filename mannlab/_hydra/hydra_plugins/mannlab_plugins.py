"""The yaml files of our plugins on Hydra's search path, which only a package ``hydra_plugins`` can add to."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from mannlab import compose


class MannlabPlugins(SearchPathPlugin):
    """Appends the folder ``conf`` of each plugin that was loaded, after our own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder, package in compose.plugin_folders().items():
            search_path.append(f"plugin {package}", f"file://{folder}")
