"""bAbI: questions about little stories, answered from what was read (Weston et al. 2015)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from mannlab.contracts import Bag, Batch, Classes, Objective, Score, Split, StreamSpec, Task, Token
from mannlab.datasets.cache import fingerprint
from mannlab.datasets.questions import SOURCES, STOP, UNKNOWN, Corpus, Part, load_babi, load_tales, resolve
from mannlab.datasets.tales import FAMILIES
from mannlab.draws import Draws
from mannlab.errors import ConfigError, choices, require
from mannlab.registry import conform, defaults, register
from mannlab.scoring import answered

log = logging.getLogger(__name__)

TASKS = 20
FAILED = 5.0  # error of a task, percent, above which it counts as failed
BUCKET = 32  # stories in a row of like lengths, so that a batch of them carries little padding
SHOWN = 50  # steps of a story in a picture
WINDOW = 4 * BUCKET  # stories, in random order, that are sorted into such rows


class Steps:
    """The stories of a split as streams.

    Attributes:
        symbols: what comes in at each step, ``int16[steps]`` or ``int16[steps, J]``.
        answers: what is asked there, ``int16[steps]``; -1: nothing.
        starts: ``int64[stories + 1]``, the first step of each story.
        groups: ``int16[stories]``, which task or family each is of.
    """

    def __init__(self, part: Part, words: bool) -> None:
        self.symbols, self.answers, self.starts, self.groups = (
            part.words,
            part.answers,
            part.starts,
            part.groups,
        )
        if words:
            self._one_by_one(part)
        self.lengths = np.diff(self.starts)

    def _one_by_one(self, part: Part) -> None:
        asked = part.answers >= 0
        sizes = (part.words >= 0).sum(1)
        table = np.concatenate([part.words, np.full((len(part.words), 1), -1, np.int16)], 1)
        rows = np.flatnonzero(~asked)
        table[rows, sizes[rows]] = STOP
        sizes = sizes + ~asked
        ends = np.cumsum(sizes)
        self.symbols = table[table >= 0]
        self.answers = np.full(len(self.symbols), -1, np.int16)
        self.answers[ends[asked] - 1] = part.answers[asked]
        self.starts = np.concatenate([[0], ends])[part.starts]

    def __len__(self) -> int:
        return len(self.groups)


@register("task", "babi")
class Babi(Task):
    """Questions about little stories: 20 tasks, each of one kind of reasoning (Weston et al. 2015).

    A sample is a story; its questions come where they stand in it, and are answered at their last step by
    one of the answers of the training stories. With ``questions="alone"`` a sample is one question after the
    statements before it, without the other questions: a memory that keeps all it was told then holds
    statements only, as in Sukhbaatar et al. 2015. Several words (tasks 8 and 19) are one answer, as in
    Sukhbaatar et al. 2015. All tasks are learnt together unless ``tasks`` says otherwise. The data has no
    validation set: a tenth of the training stories is set aside, the same in every run. Once through
    training is every story once, but for what is left over of rows of 32: up to 31 stories, others each
    time.

    ``error_task_7_percent`` is the share of wrong answers of a task. The literature gives three numbers the
    name of mean error, which cannot be compared:

    - ``run_mean_error_percent``, here: the mean over the tasks of *one run*. With all tasks in the run and
      the run chosen as the best of several it is the "best run" of papers.
    - The mean over several runs of that ("mean over runs"): average it over seeds.
    - The mean over tasks of the best of several runs *on each task alone* ("per task"): runs with
      ``task.tasks=[1]``, ``[2]``, ... each. Never put it beside the other two.

    ``failed_tasks_count`` counts the tasks of the run with more than 5 % errors.

    Stories that are generated, where there is no bAbI, are of families of ours, and their metrics have
    other names (``error_two_facts_percent``, ``run_mean_error_of_families_percent``).

    Args:
        tasks: numbers of the tasks to learn together; null: all 20.
        size: training questions of each task: 1k or 10k.
        steps: what a step is: a sentence (its words weighted by their places) or a word.
        embedding: width of what a sentence is summed to. This and the next three go with
            steps=sentences.
        embeddings: a sentence is summed to so many different vectors, laid side by side: one for each of
            those that a memory network writes, where they go to it as they are (``model.interface=direct``).
        deviation: standard deviation of the numbers that words are known by, at first.
        positions: weight words by their places; false: the order of words does not count.
        questions: in_story, or alone.
        recent: of questions alone, how many of the last statements come before one; null: all.
        source: babi; generated; or auto: bAbI if it is there or can be fetched, else generated.
        root: folder that holds bAbI; null looks in $MANNLAB_DATA and the cache, then downloads.
        families: of generated stories; null: all.
        on_error: a malformed line: raise, naming it, or skip its story and count.
    """

    asks_few = True

    def __init__(
        self,
        *,
        tasks: list[int] | None = None,
        size: Literal["1k", "10k"] = "10k",
        steps: Literal["sentences", "words"] = "sentences",
        embedding: int = 64,
        embeddings: int = 1,
        deviation: float = 0.1,
        positions: bool = True,
        questions: Literal["in_story", "alone"] = "in_story",
        recent: int | None = None,
        source: SOURCES = "auto",
        root: str | None = None,
        families: list[str] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        for key, least in {"embedding": embedding, "embeddings": embeddings}.items():
            require(least >= 1, f"task.{key}: {least} is not allowed.", "It must be at least 1.")
        require(deviation > 0, f"task.deviation: {deviation} is not allowed.", "It must be above 0.")
        require(
            recent is None or (recent >= 1 and questions == "alone"),
            f"task.recent: {recent} is not allowed.",
            "It is a number of statements, at least 1, and goes with task.questions=alone; or null.",
        )
        sums = {
            "embedding": embedding,
            "embeddings": embeddings,
            "deviation": deviation,
            "positions": positions,
        }
        for key, value in sums.items() if steps == "words" else ():
            require(
                value == defaults(Babi)[key],
                f"task.{key}: {value} is not allowed with task.steps=words.",
                f"It is of sentences; words have model.embedding_width. Leave task.{key} out.",
            )
        self.size, self.steps, self.questions = size, steps, questions
        self.corpus = self._load(tasks, families, source, root, on_error)
        self.babi = self.corpus.source.name == "babi"
        of = "" if self.babi else "_of_families"
        self.mean_name = f"run_mean_error{of}_percent"
        self.failed_name = "failed_tasks_count" if self.babi else "failed_families_count"
        self.objective = Objective("error_percent", "min", shown=self.mean_name)
        words = steps == "words"
        parts = self.corpus.parts
        if questions == "alone":
            parts = {split: part.alone(recent) for split, part in parts.items()}
        self.parts = {split: Steps(part, words) for split, part in parts.items()}
        self.fingerprint = fingerprint(self.corpus.vocabulary, self.corpus.answers)
        count = len(self.corpus.vocabulary)
        longest = self.corpus.parts["train"].words.shape[1]
        channel = Token(count) if words else Bag(count, longest, embedding, positions, embeddings, deviation)
        self.spec = StreamSpec({"text": channel}, Classes(len(self.corpus.answers)))
        self._orders: dict[tuple[int, str, int], NDArray[np.int64]] = {}

    def _load(
        self,
        tasks: list[int] | None,
        families: list[str] | None,
        source: SOURCES,
        root: str | None,
        on_error: Literal["raise", "skip"],
    ) -> Corpus:
        for task in tasks or []:
            require(
                1 <= task <= TASKS, f"task.tasks: {task} is not allowed.", f"Tasks are numbers, 1 to {TASKS}."
            )
        for family in families or []:
            if family not in FAMILIES:
                hint = choices(family, FAMILIES, "families")
                raise ConfigError(f"task.families: there is no '{family}'.", hint)
        for key, given in (("tasks", tasks), ("families", families)):
            require(given != [], f"task.{key}: none is named.", "Name some, or use null for all.")
        found = resolve(source, root)
        if found.name == "generated":
            require(
                tasks is None,
                "task.tasks: these are numbers of bAbI's tasks, and the stories are generated.",
                "Choose among generated ones with task.families, or set task.root to a folder with bAbI.",
            )
            return load_tales(self.size, list(dict.fromkeys(families or FAMILIES)))
        require(
            families is None,
            "task.families: these are of generated stories, and bAbI was found.",
            "Use task.source=generated, or task.tasks=[1,2].",
        )
        return load_babi(found, self.size, sorted(set(tasks or range(1, TASKS + 1))), on_error)

    @classmethod
    def label(cls, options: Mapping[str, Any]) -> str:
        source = conform(options.get("source", "auto"), SOURCES, "task.source")
        found = resolve(source, conform(options.get("root"), str | None, "task.root"))
        return "babi" if found.name == "babi" else "babi-generated"

    def facts(self) -> dict[str, Any]:
        corpus = self.corpus
        count = {split: len(part) for split, part in self.parts.items()}
        asked = {split: int((part.answers >= 0).sum()) for split, part in self.parts.items()}
        return {
            "source": corpus.source.name,
            "root": None if corpus.source.folder is None else str(corpus.source.folder),
            "size": self.size,
            "questions": self.questions,
            "groups": corpus.groups,
            "together": "one" if len(corpus.groups) == 1 else "joint",
            "not_as_released": corpus.altered,
            "vocabulary": len(corpus.vocabulary),
            "answers": len(corpus.answers),
            **{f"{split}_stories": number for split, number in count.items()},
            **{f"{split}_questions": number for split, number in asked.items()},
            "skipped_lines": corpus.skipped_lines,
            "skipped_stories": corpus.skipped_stories,
        }

    # ------------------------------------------------------------------ stories

    def splits(self, stage: str) -> list[Split]:
        return [Split("train") if stage == "train" else Split(stage, len(self.parts[stage]))]

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        part = self.parts[split.name]
        samples = np.arange(start, start + count)
        stories = self._drawn(part, draws, samples) if split.name == "train" else samples
        lengths = part.lengths[stories]
        places = np.arange(lengths.max())
        real = places < lengths[:, None]
        rows = part.starts[stories][:, None] + np.where(real, places, 0)
        symbols, answers = part.symbols[rows].astype(np.int64), part.answers[rows].astype(np.int64)
        symbols[~real] = -1 if symbols.ndim == 3 else UNKNOWN
        answers[~real] = -1
        valid = torch.from_numpy(real.astype(np.float32))
        return Batch(
            {"text": torch.from_numpy(symbols)},
            torch.from_numpy(np.maximum(answers, 0)).unsqueeze(-1),
            torch.from_numpy((answers >= 0).astype(np.float32)),
            None if real.all() else valid,
            extra={"group": torch.from_numpy(part.groups[stories].astype(np.int64))},
        )

    def _drawn(self, part: Steps, draws: Draws, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which story each sample of training is: all of them in random order, then in another one."""
        # What is left over of the last bucket waits for the next time through.
        size = len(part) - len(part) % BUCKET if len(part) >= BUCKET else len(part)
        epochs, places = samples // size, samples % size
        stories = np.empty_like(samples)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            stories[here] = self._order(part, draws, int(epoch), size)[places[here]]
        return stories

    def _order(self, part: Steps, draws: Draws, epoch: int, size: int) -> NDArray[np.int64]:
        key = (draws.seed, draws.stream, epoch)
        if key not in self._orders:
            random = draws.generator(epoch)
            order = random.permutation(len(part))[:size]
            windows = np.array_split(order, range(WINDOW, size, WINDOW))
            order = np.concatenate(
                [window[np.argsort(part.lengths[window], kind="stable")] for window in windows]
            )
            if size % BUCKET == 0:
                order = order.reshape(-1, BUCKET)[random.permutation(size // BUCKET)].reshape(-1)
            while len(self._orders) > 1:
                del self._orders[next(iter(self._orders))]
            self._orders[key] = order
        return self._orders[key]

    def traced_pictures(self, trace: Mapping[str, Tensor], batch: Batch) -> dict[str, Any]:
        """How far the reads at the story's last question go back to each step before it."""
        reading, writing = trace.get("read weights"), trace.get("write weights")
        asked = batch.scored[0].nonzero()
        if reading is None or writing is None or len(asked) == 0 or int(asked[-1]) == 0:
            return {}
        from mannlab.plots.alignment import draw_alignment, recall

        step = int(asked[-1])
        said = [self._words(symbols) for symbols in batch.inputs["text"][0, : step + 1].cpu().numpy()]
        weights = recall(reading, writing, step)
        first = max(0, step - SHOWN)
        heads = [str(head + 1) for head in range(weights.shape[1])]
        title = f"{said[step]} {self.corpus.answers[int(batch.targets[0, step, 0])]}"
        return {"question": draw_alignment(weights[first:], heads, said[first:step], title)}

    def spell(self, channel: str, symbol: int) -> str:
        return (self.corpus.answers if channel == "target" else self.corpus.vocabulary)[symbol]

    def _words(self, symbols: NDArray[np.int64]) -> str:
        return " ".join(self.corpus.vocabulary[symbol] for symbol in np.atleast_1d(symbols) if symbol >= 0)

    # ------------------------------------------------------------------ score

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Loss: nats, summed over the questions of a story. Metrics: percent of wrong answers."""
        said, wanted = (part[:, 0] for part in answered(logits, batch))
        loss = cross_entropy(said, wanted, reduction="sum") / len(batch)
        with torch.no_grad():
            # An answer that training does not have cannot be given.
            wrong = ((said.argmax(-1) != wanted) | (wanted == UNKNOWN)).to(loss)
            here = batch.scored.bool()
            groups = batch.extra["group"].unsqueeze(1).expand_as(here)[here]
            count = len(self.corpus.groups)
            totals = wrong.new_zeros(count).index_add(0, groups, wrong)
            counts = torch.bincount(groups, minlength=count).to(wrong)
            metrics = {"error_percent": (100 * wrong.sum(), counts.sum())}
            metrics |= {
                f"error_{name}_percent": (100 * totals[i], counts[i])
                for i, name in enumerate(self.corpus.groups)
            }
        return Score(loss, metrics)

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """The mean over the tasks that were asked (all of them, in a whole validation or test set)."""
        errors = [means[f"error_{name}_percent"] for name in self.corpus.groups]
        there = [error for error in errors if not math.isnan(error)]
        return {
            self.mean_name: sum(there) / len(there) if there else math.nan,
            self.failed_name: float(sum(error > FAILED for error in there)),
        }
