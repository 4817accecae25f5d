"""Omniglot, an image at a time: name new characters after one example of each (Santoro et al. 2016)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from mannlab.contracts import Batch, Classes, Image, Objective, Score, Split, StreamSpec, Task, Vector
from mannlab.datasets.characters import Source, resolve
from mannlab.datasets.drawings import DRAWINGS, Drawings
from mannlab.datasets.placing import placed
from mannlab.draws import Draws
from mannlab.errors import at_least, require
from mannlab.registry import conform, register
from mannlab.scoring import class_costs
from mannlab.tasks._episodes import (
    Plan,
    confusion,
    draw_distinct,
    few_shot,
    few_shot_sets,
    instances,
    set_name,
)
from mannlab.tasks._levels import level_splits

log = logging.getLogger(__name__)

SANTORO_TRAIN = 1200  # of 1,623 characters
LETTERS = 5  # a string label has five letters, each of a to e
STRINGS = LETTERS**LETTERS
BUCKET = 16  # episodes in a row with as many classes, so that a batch of them carries no padding
TURN, SHIFT = math.pi / 16, 10 / 105  # most jitter: radians, and widths of the picture
INSTANCES = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th")


@register("task", "omniglot")
class Omniglot(Task):
    """Name characters never seen before, after one example of each (Santoro et al. 2016).

    An episode has a few characters, each with a label of its own that holds for that episode alone. At
    each step comes an image, drawn from one of them at random (so they are not balanced), with the label
    of the *previous* image (zeros at first); the label of this one is asked. All a network can do at a
    character's first instance is guess; at the second it can know, if it remembers.

    In an episode every character is turned by a multiple of 90 degrees, the same for all its images, which
    makes new characters of old ones (the characters of one episode differ even before that), and every
    image is turned by up to pi/16 and moved by up to 10 of the original's 105 pixels, both before it is
    brought to its small size. A character's drawings come in random order, none twice before all 20 have
    come.

    ``split=santoro`` trains on 1,200 of all 1,623 characters, picked by a fixed shuffle, and tests on the
    other 423; ``lake`` trains on the 964 of the background alphabets and tests on the 659 of the
    evaluation alphabets. The paper has no validation set; choosing a checkpoint by test characters would
    leak, so ``val_characters`` training characters are set aside for it and never trained on (1,120 are
    then left of 1,200). With ``val_characters=0`` all are trained on, and validation uses them too.
    Glyphs, the stand-in for Omniglot, are split by alphabet in either case.

    An episode may have more classes than there are characters where these are turned: then a character
    in another turn is another class.

    ``episodes`` adds test sets of the few-shot kind: an episode is ``shots`` images of each of ``ways``
    characters, in random order and with labels as above, of which nothing is asked; then queries, each an
    image of one of them. A query's label is never shown: the first query comes with the label of the image
    before it, as always; others come without one. Right answers are ``accuracy_5way_1shot_percent``.

    Args:
        classes: characters in an episode.
        episode_length: images in an episode; null is 10 for each class.
        labels: one_hot, or five_letters: strings of the letters a to e, all five of which must be right.
        image_size: height and width, pixels.
        encoder: how the model takes images in: flat (the pixels) or conv (a small convolutional net).
        source: omniglot; glyphs (drawn from fonts, no download); or auto: Omniglot if it is there or can
            be fetched, else glyphs.
        root: folder that holds Omniglot; null looks in $MANNLAB_DATA and the cache, then downloads.
        split: how characters are divided between training and test.
        val_characters: training characters set aside for validation.
        rotations: turn characters by multiples of 90 degrees in training.
        test_rotations: the same in validation and test, as in the paper.
        jitter: turn and move each image a little, everywhere.
        val_episodes: episodes in the validation set.
        test_episodes: episodes in the test set, and in each of ``episodes``.
        test_classes: numbers of classes at which the trained model is also tested (in a fifth as many
            episodes, as long in proportion); one-hot labels have room for ``classes`` of them.
        episodes: few-shot test sets, each [ways, shots], such as [[5, 1], [5, 5]]; one-hot labels have room
            for ``classes`` ways.
        queries: images asked in an episode of ``episodes``.
        curriculum: 2 classes at first, and up to twice as many whenever training episodes cost less than
            this, in bits for each label (for each letter of five_letters); true: 0.5, since the first
            instance of a character can only be guessed; or a mapping with any of threshold, start (2), max
            (at most ``classes``, which sets the width of labels and must be available as characters) and
            window (256 episodes, over which the mean is taken); null or false: no curriculum. An episode
            of fewer classes is shorter in proportion. Once it has come to ``classes``, every episode has as
            many, as without a curriculum.
    """

    least_size, easy, picture_samples = 2, 0.5, 32
    tested = frozenset({"test_episodes", "test_classes", "episodes", "queries"})
    objective = Objective("accuracy_2nd_instance_percent", "max")

    def __init__(
        self,
        *,
        classes: int = 5,
        episode_length: int | None = None,
        labels: Literal["one_hot", "five_letters"] = "one_hot",
        image_size: Literal[20, 28] = 20,
        encoder: Literal["flat", "conv"] = "flat",
        source: Literal["auto", "omniglot", "glyphs"] = "auto",
        root: str | None = None,
        split: Literal["santoro", "lake"] = "santoro",
        val_characters: int = 80,
        rotations: bool = True,
        test_rotations: bool = True,
        jitter: bool = True,
        val_episodes: int = 200,
        test_episodes: int = 400,
        test_classes: list[int] | None = None,
        episodes: list[list[int]] | None = None,
        queries: int = 1,
        curriculum: bool | float | dict[str, Any] | None = None,
    ) -> None:
        self.curriculum, self.first_ceiling, self.last_ceiling = curriculum, 2, classes
        at_least(
            "task",
            {
                "classes": (classes, 2),
                "queries": (queries, 1),
                "episode_length": (10 * classes if episode_length is None else episode_length, 1),
                "val_characters": (val_characters, 0),
                "val_episodes": (val_episodes, 1),
                "test_episodes": (test_episodes, 1),
            },
        )
        strings = labels == "five_letters"
        self.test_classes = test_classes or []
        self.few_shot = few_shot_sets(episodes or [], queries)
        room = STRINGS if strings else classes
        wanted = {"classes": [classes], "test_classes": self.test_classes}
        wanted["episodes"] = [ways for ways, _ in self.few_shot.values()]
        for key, numbers in wanted.items():
            most, least = max(numbers, default=2), min(numbers, default=2)
            require(least >= 2, f"task.{key}: {least} classes are not allowed.", "There must be at least 2.")
            require(
                most <= room,
                f"task.{key}: {most} is more than the {room} "
                + ("strings of five letters." if strings else "labels of task.classes."),
                f"At most {room} with task.labels={labels}."
                + ("" if strings else f" Use task.classes={most}, or task.labels=five_letters."),
            )
        self.classes, self.strings, self.image_size = classes, strings, image_size
        self.length = 10 * classes if episode_length is None else episode_length
        self.source, self.root, self.split, self.val_characters = source, root, split, val_characters
        self.rotations = {"train": rotations, "val": test_rotations, "test": test_rotations}
        self.jitter, self.queries = jitter, queries
        self.val_episodes, self.test_episodes = val_episodes, test_episodes
        self.groups, self.count = (LETTERS, LETTERS) if strings else (1, classes)
        self.spec = StreamSpec(
            {
                "image": Image(image_size, image_size, 1, encoder),
                "label": Vector(self.groups * self.count),
            },
            Classes(self.count, self.groups),
        )
        self._found: Source | None = None
        self._drawings: Drawings | None = None
        self._images = torch.empty(0)
        self._characters: dict[str, NDArray[np.int64]] = {}

    # ------------------------------------------------------------------ data

    @classmethod
    def label(cls, options: Mapping[str, Any]) -> str:
        source = conform(options.get("source", "auto"), Literal["auto", "omniglot", "glyphs"], "task.source")
        found = resolve(source, conform(options.get("root"), str | None, "task.root"))
        return "omniglot" if found.name == "omniglot" else "omniglot-glyphs"

    def prepare(self) -> None:
        if self._drawings is not None:
            return
        self._found = resolve(self.source, self.root)
        drawings = self._found.load(2 * self.image_size)
        self._characters = self._divide(drawings)
        self._images = torch.from_numpy(drawings.images).flatten(0, 1)
        self._drawings = drawings
        # The run's log may have been opened since the source was resolved, so this says it again.
        stands_in = self.source == "auto" and self._found.name == "glyphs"
        facts = [f"{key} {value}" for key, value in self.facts().items() if value is not None]
        log.log(logging.WARNING if stands_in else logging.INFO, "task omniglot: %s", ", ".join(facts))

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is sent a task reads the drawings from the cache itself.
        return self.__dict__ | {"_drawings": None, "_images": torch.empty(0), "_characters": {}}

    def _divide(self, drawings: Drawings) -> dict[str, NDArray[np.int64]]:
        """Indices of the characters of each split."""
        order = drawings.shuffled()
        if self.split == "santoro" and self._found is not None and self._found.name == "omniglot":
            train, test = order[:SANTORO_TRAIN], order[SANTORO_TRAIN:]
        else:
            train, test = order[~drawings.held_out[order]], order[drawings.held_out[order]]
        cut = max(0, len(train) - self.val_characters)
        require(
            cut * self._turns("train") >= self.classes,
            f"task.val_characters={self.val_characters} leaves {cut} of {len(train)} training characters, "
            f"but an episode has task.classes={self.classes}.",
            "Set aside fewer, or have fewer classes.",
        )
        divided = {"train": train[:cut], "val": train[cut:] if self.val_characters else train, "test": test}
        for name, characters in divided.items():
            room, turned = len(characters) * self._turns(name), self._turns(name) > 1
            for key, classes in self._largest(name).items():
                more = " or more task.val_characters" if name == "val" else ""
                require(
                    classes <= room,
                    f"task.{key}={classes} is more than the {len(characters)} characters for {name}"
                    + (", each in four turns." if turned else "."),
                    f"Have at most {room} classes{more}.",
                )
        return divided

    def _turns(self, name: str) -> int:
        """How many classes a character makes, in a split of that name."""
        return 4 if self.rotations[name] else 1

    def _largest(self, name: str) -> dict[str, int]:
        """Most classes of an episode, by the option that asks for them."""
        found = {"classes": self.classes}
        if name == "test":
            found["test_classes"] = max(self.test_classes, default=2)
            found["episodes"] = max((ways for ways, _ in self.few_shot.values()), default=2)
        return found

    def facts(self) -> dict[str, Any]:
        self.prepare()
        assert self._found is not None
        assert self._drawings is not None
        counts = {f"{name}_classes": len(chosen) for name, chosen in self._characters.items()}
        return {
            "source": self._found.name,
            "root": None if self._found.folder is None else str(self._found.folder),
            "split": self.split if self._found.name == "omniglot" else "alphabets",
            "alphabets": len(self._drawings.alphabets),
            **counts,
        }

    # ------------------------------------------------------------------ episodes

    @property
    def trained_size(self) -> int:
        return self.classes

    def splits(self, stage: str) -> list[Split]:
        if stage == "train":
            return [Split("train")]
        if stage == "val":
            return [Split("val", self.val_episodes)]
        return [
            Split("test", self.test_episodes),
            *level_splits("test", self.test_episodes, "classes", self.test_classes, self.classes),
            *(Split("test", self.test_episodes, label=label) for label in self.few_shot),
        ]

    def batch(self, split: Split, draws: Draws, start: int, count: int) -> Batch:
        self.prepare()
        plan = self.plan(split, draws, start, count)
        slots, length = plan.slots, plan.slots.shape[1]
        rows = np.arange(count)[:, None]
        characters, turns = self._characters_of(split.name, draws, start, count, plan.most)
        seen = instances(slots)
        keys = draws.uniform(start, count, plan.most * DRAWINGS, "drawings").reshape(count, -1, DRAWINGS)
        drawing = np.argsort(keys, -1)[rows, slots, seen % DRAWINGS]
        images = self._render(
            characters[rows, slots] * DRAWINGS + drawing, turns[rows, slots], draws, start, plan.steps
        )
        targets = torch.from_numpy(self._targets(slots, draws, start, plan.most))
        label = torch.zeros(count, length, self.groups * self.count)
        label[:, 1:] = one_hot(targets[:, :-1], self.count).flatten(2)
        real = torch.from_numpy((np.arange(length) < plan.lengths[:, None]).astype(np.float32))
        scored = real.clone()
        if plan.shown:
            label[:, plan.shown + 1 :] = 0
            scored[:, : plan.shown] = 0
        return Batch(
            {"image": images, "label": label},
            targets,
            scored,
            None if bool(real.all()) else real,
            extra={
                "instance": torch.from_numpy(seen + 1),
                "class": torch.from_numpy(slots),
                "character": torch.from_numpy(characters[rows, slots]),
                **plan.extra,
            },
        )

    def plan(self, split: Split, draws: Draws, start: int, count: int) -> Plan:
        """What the images of the episodes are of."""
        shots = self.few_shot.get(split.label)
        if shots is not None:
            return few_shot(draws, start, count, *shots, self.queries)
        present = self.class_counts(split, draws, start, count)
        # As many numbers for each sample as the largest could need, whatever batch it comes in.
        most = split.level or split.ceiling or self.classes
        lengths, steps = self._lengths(present), int(self._lengths(np.array(most)))
        drawn = draws.uniform(start, count, steps, "slots")[:, : lengths.max()]
        return Plan((drawn * present[:, None]).astype(np.int64), lengths, most, steps)

    def _lengths(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Images in an episode of so many classes."""
        return -(-self.length * classes // self.classes)

    def _characters_of(
        self, name: str, draws: Draws, start: int, count: int, classes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The character and the quarter turns of each class of an episode, ``int64[count, classes]`` each."""
        available = self._characters[name]
        if classes > len(available):
            turned = draw_distinct(draws, start, count, 4 * len(available), classes, "turned_characters")
            return available[turned // 4], turned % 4
        characters = available[draw_distinct(draws, start, count, len(available), classes, "characters")]
        turns = np.zeros((count, classes), np.int64)
        if self.rotations[name]:
            turns = (draws.uniform(start, count, classes, "turns") * 4).astype(np.int64)
        return characters, turns

    def class_counts(self, split: Split, draws: Draws, start: int, count: int) -> NDArray[np.int64]:
        """Number of classes of each episode, ``int64[count]``."""
        if split.ceiling is None or split.ceiling >= self.classes:
            return np.full(count, split.level or self.classes)
        return draws.integers(start, count, 2, split.ceiling, "classes", BUCKET)

    def _targets(self, slots: NDArray[np.int64], draws: Draws, start: int, most: int) -> NDArray[np.int64]:
        """Labels, ``int64[B, T, groups]``. The order in which characters are picked is random already."""
        if not self.strings:
            return slots[..., None]
        strings = draw_distinct(draws, start, len(slots), STRINGS, most, "strings")
        chosen = np.take_along_axis(strings, slots, 1)
        return chosen[..., None] // LETTERS ** np.arange(LETTERS - 1, -1, -1) % LETTERS

    def _render(
        self, index: NDArray[np.int64], turns: NDArray[np.int64], draws: Draws, start: int, steps: int
    ) -> Tensor:
        """Images ``float[B, T, 1, size, size]``, turned and moved; ``steps`` >= T, of the longest episode."""
        count, length = index.shape
        wobble = np.zeros((3, count, length))
        if self.jitter:
            drawn = draws.uniform(start, count, 3 * steps, "jitter").reshape(count, 3, steps)
            drawn = drawn[..., :length]
            wobble = 2 * drawn.transpose(1, 0, 2) - 1
        angle = torch.from_numpy(wobble[0] * TURN + turns * (math.pi / 2)).flatten()
        # Coordinates run from -1 to 1: the picture is 2 wide.
        shift = torch.from_numpy(wobble[1:] * 2 * SHIFT).float().flatten(1)
        drawings = self._images[torch.from_numpy(index).flatten()]
        return placed(drawings, angle, shift, self.image_size).unflatten(0, (count, length))

    # ------------------------------------------------------------------ score

    def score(self, logits: Tensor, batch: Batch) -> Score:
        """Cross-entropy in nats, summed over steps and letters; accuracies, all letters right.

        ``accuracy_2nd_instance_percent`` counts the steps at which a character comes for the second time
        in its episode, and so on to the 10th; ``accuracy_percent`` counts all steps.
        """
        loss = class_costs(logits, batch).sum() / len(batch)
        with torch.no_grad():
            asked = batch.scored.bool()
            right = (logits.argmax(-1) == batch.targets).all(-1) & asked
            overall = (100 * right.sum(), asked.sum())
            metrics = {"accuracy_percent": overall}
            if "ways" in batch.extra:
                ways, shots = (int(batch.extra[name][0]) for name in ("ways", "shots"))
                metrics[f"accuracy_{set_name(ways, shots)}_percent"] = overall
            for number, name in enumerate(INSTANCES, start=1):
                here = (batch.extra["instance"] == number) & asked
                metrics[f"accuracy_{name}_instance_percent"] = (100 * (right & here).sum(), here.sum())
        return Score(loss, metrics)

    def pictures(self, logits: Tensor, batch: Batch) -> dict[str, Any]:
        """The first episode as images; over all episodes, which answer was given for which label."""
        from mannlab.plots.confusion import draw_confusion
        from mannlab.plots.strip import draw_strip

        answers = logits.argmax(-1).cpu()
        length = int((batch.scored[0] if batch.valid is None else batch.valid[0]).cpu().nonzero().max()) + 1
        strip = draw_strip(
            batch.inputs["image"][0, :length, 0].float().cpu(),
            [self._spell(label) for label in batch.targets[0, :length].tolist()],
            [self._spell(label) for label in answers[0, :length].tolist()],
            batch.extra["instance"][0, :length].tolist(),
            batch.scored[0, :length].bool().tolist(),
        )
        names = list("abcde") if self.strings else [str(n + 1) for n in range(self.count)]
        what = "letter" if self.strings else "label"
        return {
            "episode": strip,
            "confusion": draw_confusion(confusion(answers, batch, self.count), names, what),
        }

    def spell(self, channel: str, symbol: int) -> str:
        return "abcde"[symbol] if self.strings else str(symbol + 1)

    def _spell(self, label: list[int]) -> str:
        return "".join(self.spell("target", symbol) for symbol in label)
