"""Language modelling: say the next token of a running text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mannlab.contracts import Batch, Classes, Objective, Score, Split, StreamSpec, Task, Token
from mannlab.datasets.text import corpus, where
from mannlab.draws import Draws
from mannlab.errors import at_least, require
from mannlab.registry import conform, register

SOURCES = Literal["auto", "wikitext-2", "pydoc", "files"]


@register("task", "language_modelling")
class LanguageModelling(Task):
    """Say the next token of a text, from all that came before.

    The training text is cut into as many pieces as there are sequences in a step, which are read side by
    side, ``length`` tokens a step; the model's state goes on from step to step, gradients do not. Each
    time through, the pieces are cut elsewhere. Validation and test texts are read in the same way, in
    ``eval_lanes`` pieces, every token but a piece's first being asked once. A validation that reads only
    the beginning of each piece is faster: ``trainer.limit_val_batches=20``.

    Args:
        level: word (WikiText-2 has a space between any two; of other text, letters and digits in a row, and
            each other sign), bpe (byte pairs, learnt on the training text; needs the extra ``text``) or byte.
        vocabulary: most tokens that there are; rarer words are unknown. null: all words, 4,096 for bpe.
        length: tokens of each sequence in a step, over which gradients flow.
        source: wikitext-2; pydoc (the text of Python's own help, always there); files (``files``, the last
            tenth for validation and test); or auto: WikiText-2 if it is on disk, else pydoc.
        root: folder of WikiText-2; null looks in $MANNLAB_DATA and the cache.
        files: paths of text files in UTF-8, which may end in .gz.
        eval_lanes: pieces of the validation and the test text, read side by side.
    """

    continuous = True
    objective = Objective("bits_per_token", "min", shown="perplexity_per_token")

    def __init__(
        self,
        *,
        level: Literal["word", "bpe", "byte"] = "word",
        vocabulary: int | None = None,
        length: int = 64,
        source: SOURCES = "auto",
        root: str | None = None,
        files: list[str] | None = None,
        eval_lanes: int = 16,
    ) -> None:
        require(
            vocabulary is None or level != "byte",
            f"task.vocabulary: {vocabulary} is not allowed with task.level=byte.",
            "There are 256 bytes: leave task.vocabulary=null.",
        )
        fewest = 256 if level == "bpe" else 2  # every byte is a token of byte pairs
        sizes = {"length": (length, 1), "eval_lanes": (eval_lanes, 1)}
        sizes["vocabulary"] = (fewest if vocabulary is None else vocabulary, fewest)
        at_least("task", sizes)
        self.level, self.length, self.eval_lanes = level, length, eval_lanes
        self.corpus = corpus(source, level, vocabulary, root, files or [])
        for split, tokens in self.corpus.tokens.items():
            require(
                len(tokens) > eval_lanes,
                f"task.source: the {split} part of the text has {len(tokens)} tokens, too few.",
                f"Give a longer text, or fewer task.eval_lanes (now {eval_lanes}).",
            )
        self.fingerprint = self.corpus.fingerprint
        count = self.corpus.vocabulary
        self.spec = StreamSpec({"token": Token(count)}, Classes(count))

    @classmethod
    def label(cls, options: Mapping[str, Any]) -> str:
        source = conform(options.get("source", "auto"), SOURCES, "task.source")
        return f"{options['name']}-{where(source, options.get('root'))[0]}"

    def splits(self, stage: str) -> list[Split]:
        if stage == "train":
            return [Split("train")]
        lanes, asked = self.eval_lanes, len(self.corpus.tokens[stage]) - 1
        return [Split(stage, lanes * math.ceil(math.ceil(asked / lanes) / self.length), lanes=lanes)]

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        samples = np.arange(start, start + count)
        lanes, chunks = samples % split.lanes, samples // split.lanes
        tokens = self.corpus.tokens[split.name]
        if split.name == "train":
            first, last = self._train(len(tokens), split, draws, lanes, chunks)
        else:
            first, last = self._evaluation(len(tokens) - 1, split.lanes, lanes, chunks)
        places = first[:, None] + np.arange(self.length)
        real = places < last[:, None]
        places = np.minimum(places, len(tokens) - 2)
        given, asked = (torch.from_numpy(tokens[places + shift].astype(np.int64)) for shift in (0, 1))
        mask = torch.from_numpy(real.astype(np.float32))
        return Batch(
            {"token": given},
            asked.unsqueeze(-1),
            mask,
            None if real.all() else mask,
            continues=bool((self._position(split, chunks) > 0).all()),
            extra={"words": torch.full((count,), self._words_per_token(split.name))},
        )

    def _position(self, split: Split, chunks: Any) -> Any:
        """Which step of its reading of the text each sample is."""
        return chunks % self._steps(split.lanes) if split.name == "train" else chunks

    def _steps(self, lanes: int) -> int:
        # One step less than there would be: room to begin each reading elsewhere.
        whole = (len(self.corpus.tokens["train"]) - 1) // lanes // self.length
        return max(1, whole - 1)

    def _train(self, size: int, split: Split, draws: Draws, lanes: Any, chunks: Any) -> tuple[Any, Any]:
        steps = self._steps(split.lanes)
        passes = chunks // steps
        least = int(passes.min())
        shifts = draws.uniform(least, int(passes.max()) - least + 1, 1, "shift")[passes - least, 0]
        room = max(0, size - 1 - split.lanes * steps * self.length)
        # Lanes of a text too short for them begin at its end again.
        places = (
            lanes * steps * self.length + chunks % steps * self.length + (shifts * (room + 1)).astype(int)
        )
        first = places % max(1, size - self.length)
        return first, np.minimum(first + self.length, size - 1)

    def _evaluation(self, asked: int, of: int, lanes: Any, chunks: Any) -> tuple[Any, Any]:
        return lanes * asked // of + chunks * self.length, (lanes + 1) * asked // of

    def _words_per_token(self, split: str) -> float:
        return self.corpus.words[split] / len(self.corpus.tokens[split])

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Loss: nats per token. Metrics: bits per token, and per word (which tokenizers share)."""
        flat, asked = logits.flatten(0, 2), batch.targets.flatten()
        costs = cross_entropy(flat.float(), asked, reduction="none").view_as(batch.scored)
        asked_of = batch.scored.bool().sum(1)
        total, count = (costs * batch.scored).sum(), asked_of.sum()
        bits = total.detach() / math.log(2)
        metrics = {"bits_per_token": (bits, count)}
        if self.level != "word":
            metrics["bits_per_word"] = (bits, (asked_of * batch.extra["words"]).sum())
        return Score(total / count.clamp_min(1), metrics)

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        return {
            f"perplexity_per_{unit}": 2.0 ** min(means[f"bits_per_{unit}"], 1000.0)
            for unit in ("token", "word")
            if f"bits_per_{unit}" in means
        }

    def spell(self, channel: str, symbol: int) -> str:
        if self.level == "byte":
            return chr(symbol) if 32 < symbol < 127 else {10: "↵", 32: "␣"}.get(symbol, f"{symbol:02x}")
        # Byte pairs write a space as Ġ and the end of a line as Ċ.
        return self.corpus.symbols[symbol].replace("\n", "↵").replace("Ġ", "␣").replace("Ċ", "↵")

    def facts(self) -> dict[str, Any]:
        tokens = {f"{split}_tokens": len(part) for split, part in self.corpus.tokens.items()}
        return {"source": self.corpus.source, "vocabulary": self.corpus.vocabulary, **tokens}
