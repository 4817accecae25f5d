"""Translation: a sentence, a separator and its translation, as one stream of tokens."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

from mannlab.contracts import (
    Batch,
    Classes,
    Examination,
    Generate,
    Objective,
    Score,
    Split,
    StreamSpec,
    Task,
    Token,
)
from mannlab.datasets.translation import Sentences, load, named_source
from mannlab.draws import Draws
from mannlab.errors import ConfigError, at_least_one, require
from mannlab.registry import conform, register
from mannlab.scoring import answered, require_sacrebleu, text_scores

log = logging.getLogger(__name__)

SOURCES = Literal["auto", "numbers", "multi30k", "tatoeba", "files"]
FILES = str | list[str] | None
WINDOW = 50  # batches among which sentences are sorted by length
SHOWN = 12  # translations written down, or unseen characters named


@register("task", "translation")
class Translation(Task):
    """Say in one language what was said in another.

    The stream is the source, a separator, then the translation so far; from the separator on, the next token
    of the translation is asked, and at last its end. Both languages share one vocabulary of byte pairs, which
    loses no character. Training goes through all pairs again and again, each time in another order; pairs of
    like length stand together.

    Args:
        languages: of source and target.
        source: numbers (number words, made by ``num2words``), multi30k, tatoeba, files (``train``), or auto:
            files if there are any, else numbers.
        train: for files: [source.txt, target.txt], aligned by line, or one file with a tab between source and
            target; UTF-8, may end in .gz.
        val: as ``train``; null: about one distinct source sentence in fifty of the training text, chosen by a
            hash, with all its translations; they then leave it.
        test: as ``val``.
        root: folder of Multi30k or Tatoeba; null: $MANNLAB_DATA, the cache, then (Multi30k) a download.
        pairs: numbers for training.
        largest: the largest number.
        vocabulary: most tokens; null: 320 for numbers, 10,000 for the rest.
        lowercase: make everything lower-case, and score without looking at case.
        max_tokens: longest source or target.
        on_error: raise: stop at a line that cannot be used, naming it; skip: leave it out, and count it.
        label_smoothing: share of each answer's probability that the loss spreads over all tokens.
        bucket: this many consecutive samples are of like length; best the batch size.
        val_sequences: pairs of the validation set; null: all.
        test_sequences: as ``val_sequences``.
        val_translations: of these, how many are translated without help (greedily) and scored by BLEU, chrF
            and exact matches; 0: none.
        test_translations: as ``val_translations``, of the test set; null: all.
        beam: how many translations the search keeps on the test set and in predict; 1: greedy.
        length_penalty: scores of a search are divided by the length to this power.
    """

    tested = frozenset({"test_sequences", "test_translations", "beam", "length_penalty"})
    objective = Objective("bits_per_token", "min", shown="perplexity_per_token")
    asks_few = True

    def __init__(
        self,
        *,
        languages: list[str] | None = None,
        source: SOURCES = "auto",
        train: FILES = None,
        val: FILES = None,
        test: FILES = None,
        root: str | None = None,
        pairs: int = 20_000,
        largest: int = 999_999,
        vocabulary: int | None = None,
        lowercase: bool = False,
        max_tokens: int = 256,
        on_error: Literal["raise", "skip"] = "raise",
        label_smoothing: float = 0.0,
        bucket: int = 64,
        val_sequences: int | None = None,
        test_sequences: int | None = None,
        val_translations: int = 64,
        test_translations: int | None = None,
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> None:
        least = {"bucket": bucket, "max_tokens": max_tokens, "beam": beam}
        sequences = {"val_sequences": val_sequences, "test_sequences": test_sequences}
        least |= {key: value for key, value in sequences.items() if value is not None}
        at_least_one("task", **least)
        require(
            0 <= label_smoothing < 1,
            f"task.label_smoothing: {label_smoothing} is not allowed.",
            "It must be in [0, 1).",
        )
        require_sacrebleu("task=translation")
        self.languages = ["en", "de"] if languages is None else languages
        self.text = load(
            source,
            self.languages,
            _files(train=train, val=val, test=test),
            root,
            vocabulary=vocabulary,
            lowercase=lowercase,
            max_tokens=max_tokens,
            on_error=on_error,
            pairs=pairs,
            largest=largest,
        )
        self.lowercase, self.max_tokens, self.label_smoothing = lowercase, max_tokens, label_smoothing
        self.bucket, self.beam, self.length_penalty = bucket, beam, length_penalty
        self.most = {"val": val_sequences, "test": test_sequences}
        self.translations = {"val": val_translations, "test": test_translations}
        size = self.text.vocabulary.size
        self.spec = StreamSpec({"token": Token(size)}, Classes(size))
        self.fingerprint = self.text.fingerprint
        self._longest = int(self.text.targets["train"].lengths.max()) + 1
        self._orders: dict[tuple[int, str, int], NDArray[np.int64]] = {}
        self._signatures: dict[str, str] = {}

    @classmethod
    def label(cls, options: Mapping[str, Any]) -> str:
        source = conform(options.get("source", "auto"), SOURCES, "task.source")
        return f"{options['name']}-{named_source(source, _files(train=options.get('train')))}"

    def splits(self, stage: str) -> list[Split]:
        if stage == "train":
            return [Split("train")]
        whole, most = len(self.text.sources[stage]), self.most[stage]
        return [Split(stage, whole if most is None else min(most, whole))]

    # ------------------------------------------------------------------ batches

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        sources, targets = self.text.sources[split.name], self.text.targets[split.name]
        indices = list(range(start, start + count))
        if split.name == "train":
            indices = self._training(draws, start, count)
        return self._stream([(sources[i], targets[i]) for i in indices])

    def _training(self, draws: Draws, start: int, count: int) -> list[int]:
        size = len(self._order(draws, 0))
        places = range(start, start + count)
        return [int(self._order(draws, place // size)[place % size]) for place in places]

    def _order(self, draws: Draws, epoch: int) -> NDArray[np.int64]:
        """All pairs (less than a bucket is left out), those of like length in buckets."""
        key = (draws.seed, draws.stream, epoch)
        if key not in self._orders:
            rng = draws.generator(epoch)
            lengths = self.text.sources["train"].lengths + self.text.targets["train"].lengths
            bucket = min(self.bucket, len(lengths))
            order = rng.permutation(len(lengths))[: len(lengths) // bucket * bucket]
            window = np.arange(len(order)) // (bucket * WINDOW)
            buckets = order[np.lexsort((lengths[order], window))].reshape(-1, bucket)
            while len(self._orders) > 2:
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = buckets[rng.permutation(len(buckets))].ravel()
        return self._orders[key]

    def _stream(self, pairs: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]) -> Batch:
        marks = self.text.vocabulary
        lengths = np.array([[len(source), len(target)] for source, target in pairs])
        steps = np.arange(int(lengths.sum(1).max()) + 1)
        given = np.full((len(pairs), len(steps)), marks.end)
        asked = given.copy()
        for row, (source, target) in enumerate(pairs):
            first, last = len(source), len(source) + len(target)
            given[row, :first], given[row, first], given[row, first + 1 : last + 1] = (
                source,
                marks.separator,
                target,
            )
            asked[row, first:last] = target
        real = steps <= lengths.sum(1, keepdims=True)
        scored = real & (steps >= lengths[:, :1])
        return Batch(
            {"token": torch.from_numpy(given.astype(np.int64))},
            torch.from_numpy(asked.astype(np.int64)).unsqueeze(-1),
            torch.from_numpy(scored.astype(np.float32)),
            None if real.all() else torch.from_numpy(real.astype(np.float32)),
        )

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Loss: nats per sequence, smoothed. Metrics, not smoothed: bits per token and right tokens."""
        said, asked = (part[:, 0] for part in answered(logits, batch))
        smooth = self.label_smoothing
        likely = log_softmax(said, dim=-1)
        nats = nll_loss(likely, asked, reduction="sum")
        loss = ((1 - smooth) * nats - smooth * likely.mean(-1).sum() if smooth else nats) / len(batch)
        with torch.no_grad():
            right = (likely.argmax(-1) == asked).sum()
        count = batch.scored.bool().sum()
        metrics = {
            "bits_per_token": (nats.detach() / math.log(2), count),
            "token_accuracy_percent": (100.0 * right, count),
        }
        return Score(loss, metrics)

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        return {"perplexity_per_token": 2.0 ** min(means["bits_per_token"], 1000.0)}

    # ------------------------------------------------------------------ translating

    def _translate(self, generate: Generate, sources: Sequence[Sequence[int]], beam: int) -> list[str]:
        marks = self.text.vocabulary
        found = generate(
            [[*source, marks.separator] for source in sources],
            end=marks.end,
            limits=[max(self._longest, 2 * len(source) + 10) for source in sources],
            beam=beam,
            length_penalty=self.length_penalty,
        )
        return [marks.decode(one.tokens).strip() for one in found]

    def examine(self, generate: Generate, split: Split, draws: Draws) -> Examination:
        """Translate the first pairs of a split and compare with its translations."""
        most = self.translations[split.name]
        count = split.samples or 0
        count = count if most is None else min(most, count)
        if count <= 0:
            return Examination()
        sources, targets = (
            self._first(side[split.name], count) for side in (self.text.sources, self.text.targets)
        )
        answers = self._translate(generate, sources, self.beam if split.name == "test" else 1)
        texts = [[self.text.vocabulary.decode(line) for line in side] for side in (sources, targets)]
        metrics, self._signatures = text_scores(answers, texts[1], self.lowercase)
        rows = list(zip(*texts, answers, strict=True))
        return Examination(metrics, {"translations": _table(rows[:SHOWN])})

    @staticmethod
    def _first(sentences: Sentences, count: int) -> list[list[int]]:
        return [sentences[i].tolist() for i in range(count)]

    def predict(self, generate: Generate, texts: Sequence[str]) -> list[str]:
        """Translations; blank lines stay blank. Characters never seen in training are warned of, once each.

        Raises:
            ConfigError: a text is longer than ``task.max_tokens``.
        """
        tidy = [text.strip().lower() if self.lowercase else text.strip() for text in texts]
        asked = [i for i, text in enumerate(tidy) if text]
        sources = self.text.vocabulary.encode([tidy[i] for i in asked])
        for i, source in zip(asked, sources, strict=True):
            if len(source) > self.max_tokens:
                raise ConfigError(
                    f"text: '{tidy[i][:40]}…' has {len(source)} tokens, more than task.max_tokens.",
                    f"Give at most {self.max_tokens}: one sentence a line.",
                )
        self._warn_of_unseen(tidy)
        answers = [""] * len(texts)
        for i, answer in zip(asked, self._translate(generate, sources, self.beam), strict=True):
            answers[i] = answer
        return answers

    def _warn_of_unseen(self, texts: Sequence[str]) -> None:
        new = dict.fromkeys(c for text in texts for c in text if not (c.isspace() or c in self._seen))
        if new:
            names = [c if c.isprintable() else f"U+{ord(c):04X}" for c in new]
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            log.warning("characters never seen in training: %s%s", " ".join(names[:SHOWN]), more)
            self._seen.update(new)

    @cached_property
    def _seen(self) -> set[str]:
        """Characters of the training text, in either language; later also those that were warned of."""
        sides = (self.text.sources["train"], self.text.targets["train"])
        return set().union(*(self.text.vocabulary.decode(side.tokens.tolist()) for side in sides))

    # ------------------------------------------------------------------ looking inside

    def spell(self, channel: str, symbol: int) -> str:
        return self.text.vocabulary.name(symbol)

    def traced_pictures(self, trace: Mapping[str, Tensor], batch: Batch) -> dict[str, Any]:
        reading, writing = trace.get("read weights"), trace.get("write weights")
        if reading is None or writing is None:
            return {}
        from mannlab.plots.alignment import align, draw_alignment

        scored = batch.scored[0].bool().cpu()
        first, last = int(scored.nonzero()[0]), int(scored.nonzero()[-1]) + 1
        name = self.text.vocabulary.name
        source = [name(token) for token in batch.inputs["token"][0, :first].tolist()]
        target = [name(token) for token in batch.targets[0, first:last, 0].tolist()]
        return {"alignment": draw_alignment(align(reading[:last], writing[:last], first), source, target)}

    def facts(self) -> dict[str, Any]:
        pairs = {f"{split}_pairs": len(part) for split, part in self.text.sources.items()}
        facts = {"source": self.text.source, "languages": self.languages, **pairs}
        facts |= {"vocabulary": self.text.vocabulary.size, "skipped": self.text.skipped}
        return facts | ({"sacrebleu": self._signatures} if self._signatures else {})


def _files(**named: Any) -> dict[str, list[str]]:
    """The files of each split that has some."""
    return {
        split: [files] if isinstance(files, str) else list(files) for split, files in named.items() if files
    }


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    lines = ["| source | translation | reference |", "| --- | --- | --- |"]
    for source, reference, answer in rows:
        cells = [text.replace("|", "\\|").replace("\n", " ") for text in (source, answer, reference)]
        mark = " ✓" if answer == reference else ""
        lines.append(f"| {cells[0]} | {cells[1]}{mark} | {cells[2]} |")
    return "\n".join(lines) + "\n"
