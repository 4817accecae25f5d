"""Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) on bytes, so that no character is unknown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from mannlab.errors import ConfigError

ALPHABET = 256  # bytes, which every vocabulary holds


def train_pairs(lines: Iterable[str], vocabulary: int, key: str, instead: str = "") -> Any:
    """A tokenizer of the package ``tokenizers``, learnt from ``lines``; always the same one.

    Args:
        lines: the text to learn from.
        vocabulary: most tokens, at least 256.
        key: the option to name if it cannot be.
        instead: what to use instead, ending the hint.

    Raises:
        ConfigError: ``tokenizers`` is not installed.
    """
    tokenizer = _package(key, instead).ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(lines, vocabulary, show_progress=False)
    return tokenizer


def restore(text: str, key: str) -> Any:
    """The tokenizer that ``tokenizer.to_str()`` described.

    Raises:
        ConfigError: ``tokenizers`` is not installed.
    """
    return _package(key, "").Tokenizer.from_str(text)


def _package(key: str, instead: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            f"{key} needs the package 'tokenizers'.", f"pip install 'mannlab[text]'{instead}."
        ) from error
    # Its threads and the data loader's forks do not go together.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return tokenizers
