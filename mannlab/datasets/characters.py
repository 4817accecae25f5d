"""Which characters to use: Omniglot's, where it is or can be had, else those drawn from fonts."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from mannlab.datasets import glyphs, omniglot
from mannlab.datasets.cache import cache_folder
from mannlab.datasets.drawings import Drawings
from mannlab.errors import ConfigError, DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where characters come from.

    Attributes:
        name: ``"omniglot"`` or ``"glyphs"``.
        folder: where Omniglot's two parts lie; None for glyphs.
    """

    name: str
    folder: Path | None = None

    def load(self, side: int) -> Drawings:
        """The drawings, ``side`` pixels high and wide.

        Raises:
            DataError: Omniglot's files are damaged or incomplete.
        """
        return glyphs.load(side) if self.folder is None else omniglot.load(self.folder, side)


_known: dict[tuple[str | None, ...], Source] = {}


def resolve(source: str, root: str | None = None) -> Source:
    """Find Omniglot on disk, or fetch it; decided once a process for the same question.

    Args:
        source: ``"omniglot"``, ``"glyphs"``, or ``"auto"``: Omniglot if it is on disk or can be fetched
            (one attempt), else glyphs.
        root: the folder that holds Omniglot; without it, ``$MANNLAB_DATA``, then the cache folder.

    Raises:
        ConfigError: ``root`` does not exist.
        DataError: Omniglot was asked for and is not to be had, or ``root`` does not hold it.
    """
    # The answer is logged when it is found, not each time it is asked for.
    key = (
        source,
        root,
        os.environ.get("MANNLAB_DATA"),
        str(cache_folder()),
        os.environ.get("MANNLAB_OFFLINE"),
    )
    if key not in _known:
        _known[key] = _resolve(source, root)
    return _known[key]


def _resolve(source: str, root: str | None) -> Source:
    if source == "glyphs":
        log.info("Characters: glyphs drawn from fonts (task.source=glyphs).")
        return Source("glyphs")
    folder = _on_disk(root)
    if folder is None:
        try:
            folder = omniglot.download()
        except DataError as error:
            if source == "omniglot":
                raise
            log.warning(
                "Characters: GLYPHS DRAWN FROM FONTS, NOT OMNIGLOT. %s "
                "Numbers on glyphs and on Omniglot cannot be compared. "
                "Set task.root or MANNLAB_DATA to a folder that holds Omniglot.",
                error.what,
            )
            return Source("glyphs")
    log.info("Characters: Omniglot in %s.", folder)
    return Source("omniglot", folder)


def _on_disk(root: str | None) -> Path | None:
    if root is not None:
        named = Path(root).expanduser()
        if not named.is_dir():
            raise ConfigError(
                f"task.root: there is no folder {named}.",
                "Name the folder that holds images_background.zip and images_evaluation.zip, "
                "or leave task.root=null to look in $MANNLAB_DATA and the cache, then to download.",
            )
        folder = omniglot.find(named)
        if folder is None:
            raise DataError(
                f"task.root: {named} holds no Omniglot.",
                f"Looked for images_background and images_evaluation (folders or .zip files) in it and in "
                f"{', '.join(f'{name}/' for name in omniglot.FOLDERS if name)} of it. {omniglot.MEND}",
            )
        return folder
    data = os.environ.get("MANNLAB_DATA")
    if data and (folder := omniglot.find(Path(data).expanduser())):
        return folder
    kept = omniglot.find(cache_folder())
    # A download that was killed halfway is no reason to fail: it is made again.
    return kept if kept and omniglot.complete(kept) else None
