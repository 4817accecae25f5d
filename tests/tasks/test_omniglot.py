"""Omniglot: the online protocol, the split of characters, the images, and what is scored."""

from __future__ import annotations

import logging
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, one_hot

from mannlab import registry
from mannlab.contracts import Batch, Split
from mannlab.datasets import characters, omniglot
from mannlab.datasets.characters import Source
from mannlab.datasets.drawings import Drawings
from mannlab.draws import Draws
from mannlab.errors import ConfigError
from mannlab.tasks._episodes import confusion, instances

DRAWS = Draws(3, "train")
TRAIN, TEST = Split("train"), Split("test", 400)
FIELDS = ("image", "label")
OFF = {"rotations": False, "test_rotations": False}


def smooth(count, side):
    """Blobs that no quarter turn leaves the same; all drawings differ."""
    noise = torch.rand(count * 20, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(noise, size=(side, side), mode="bilinear")
    return (images * 255).to(torch.uint8).reshape(count, 20, side, side).numpy()


@pytest.fixture(autouse=True)
def drawings(monkeypatch, tmp_path):
    """Sixty characters of blobs, twenty of them held out, instead of any real set."""
    monkeypatch.setattr(characters, "_known", {})
    monkeypatch.setenv("MANNLAB_OFFLINE", "1")
    names = [f"Alphabet{k // 20}/character{k % 20:02}" for k in range(60)]
    held_out = np.arange(60) >= 40
    made = {side: Drawings(smooth(60, side), names, held_out) for side in (40, 56)}
    monkeypatch.setattr(Source, "load", lambda self, side: made[side])
    return made[40]


def make(**options):
    return registry.build("task", "omniglot", **{"source": "glyphs", "val_characters": 8} | options)


def everything(batch):
    return [*batch.inputs.values(), batch.targets, batch.scored, *batch.extra.values()]


# ---------------------------------------------------------------------- the stream


@pytest.mark.parametrize(
    ("options", "width", "groups"), [({}, 5, 1), ({"classes": 7}, 7, 1), ({"labels": "five_letters"}, 25, 5)]
)
def test_each_image_comes_with_the_label_of_the_one_before(options, width, groups):
    batch = make(**options).batch(TRAIN, DRAWS, 0, 6)
    label, length = batch.inputs["label"], 10 * options.get("classes", 5)
    assert label.shape == (6, length, width)
    assert batch.targets.shape == (6, length, groups)
    assert label[:, 0].abs().sum() == 0, "nothing came before the first"
    assert torch.equal(label[:, 1:].unflatten(2, (groups, -1)).argmax(-1), batch.targets[:, :-1])
    assert (label[:, 1:].sum(-1) == groups).all()


def test_shapes_match_the_spec():
    task = make(image_size=28, encoder="conv", episode_length=7)
    batch = task.batch(TRAIN, DRAWS, 0, 3)
    image = task.spec.inputs["image"]
    assert (image.height, image.width, image.channels, image.encoder) == (28, 28, 1, "conv")
    assert batch.inputs["image"].shape == (3, 7, 1, 28, 28)
    assert batch.inputs["image"].dtype == batch.inputs["label"].dtype == torch.float32
    assert batch.targets.dtype == torch.int64
    assert batch.valid is None
    assert batch.scored.min() == 1
    assert batch.inputs["image"].min() >= 0
    assert batch.inputs["image"].max() <= 1


def test_an_episode_has_its_characters_one_label_each():
    batch = make(episode_length=60).batch(TRAIN, DRAWS, 0, 20)
    for row in range(20):
        pairs = set(
            zip(batch.extra["character"][row].tolist(), batch.targets[row, :, 0].tolist(), strict=True)
        )
        assert len(pairs) == 5
        assert len({character for character, _ in pairs}) == len({label for _, label in pairs}) == 5


def test_labels_are_shuffled_from_episode_to_episode():
    batch = make(classes=20, val_characters=0).batch(TRAIN, DRAWS, 0, 60)
    character, label = batch.extra["character"].flatten(), batch.targets.flatten()
    some = int(character.mode().values)
    assert len(label[character == some].unique()) > 10


def test_classes_are_drawn_evenly_but_episodes_are_not_balanced():
    slots = make().batch(TRAIN, DRAWS, 0, 200).extra["class"]
    assert one_hot(slots).float().mean((0, 1)).sub(0.2).abs().max() < 0.02
    counts = one_hot(slots).sum(1)
    assert counts.float().std() == pytest.approx(math.sqrt(50 * 0.2 * 0.8), rel=0.1), "multinomial"


def test_instances_count_up_within_a_class():
    batch = make().batch(TRAIN, DRAWS, 0, 10)
    for slots, numbers in zip(batch.extra["class"].tolist(), batch.extra["instance"].tolist(), strict=True):
        for step, slot in enumerate(slots):
            assert numbers[step] == slots[: step + 1].count(slot)


def test_strings_differ_within_an_episode():
    batch = make(labels="five_letters", classes=20, val_characters=0).batch(TRAIN, DRAWS, 0, 30)
    for row in range(30):
        strings = {tuple(label) for label in batch.targets[row].tolist()}
        assert len(strings) == len(batch.extra["class"][row].unique())
    assert one_hot(batch.targets, 5).float().mean((0, 1)).sub(0.2).abs().max() < 0.05, "all letters occur"


@pytest.mark.parametrize("options", [{}, {"labels": "five_letters", "classes": 8}])
def test_a_sample_depends_on_its_index_alone(options):
    task = make(**options)
    whole = task.batch(TRAIN, DRAWS, 5, 8)
    for first, second, both in zip(
        everything(task.batch(TRAIN, DRAWS, 5, 4)),
        everything(task.batch(TRAIN, DRAWS, 9, 4)),
        everything(whole),
        strict=True,
    ):
        assert torch.equal(torch.cat([first, second]), both)


def test_a_task_that_was_pickled_gives_the_same():
    task = make()
    whole = task.batch(TRAIN, DRAWS, 0, 3)
    sent = pickle.dumps(task)
    assert len(sent) < 10_000, "the drawings do not travel"
    for here, there in zip(
        everything(whole), everything(pickle.loads(sent).batch(TRAIN, DRAWS, 0, 3)), strict=True
    ):
        assert torch.equal(here, there)


# ---------------------------------------------------------------------- the images


def plain(drawings):
    """Every drawing at 20x20, ``[characters, 20, 20, 20]``."""
    return avg_pool2d(torch.from_numpy(drawings.images).float() / 255, 2)


def test_without_turns_and_jitter_images_are_the_drawings_and_none_comes_twice(drawings):
    batch = make(rotations=False, jitter=False, episode_length=80).batch(TRAIN, DRAWS, 0, 5)
    small = plain(drawings)
    for row in range(5):
        seen = set()
        for step in range(80):
            character = int(batch.extra["character"][row, step])
            gap = (small[character] - batch.inputs["image"][row, step, 0]).abs().amax((1, 2))
            assert gap.min() < 1e-5
            seen.add((character, int(gap.argmin())))
        most = one_hot(batch.extra["class"][row]).sum(0).clamp(max=20).sum()
        assert len(seen) == most, "all different until twenty have come"


def turns_of(batch, drawings):
    """By which quarter turn each image is its character's drawing, ``[B, T]``."""
    turned = torch.stack([plain(drawings).rot90(k, (2, 3)) for k in range(4)], 1)
    gap = (turned[batch.extra["character"]] - batch.inputs["image"][:, :, :, None]).abs().amax((4, 5))
    best = gap.amin(3)
    assert (best.amin(2) < 1e-5).all()
    return best.argmin(2)


def test_turns_belong_to_a_class_and_an_episode(drawings):
    batch = make(jitter=False, episode_length=30).batch(TRAIN, DRAWS, 0, 40)
    turns, slots = turns_of(batch, drawings), batch.extra["class"]
    assert one_hot(turns, 4).float().mean((0, 1)).sub(0.25).abs().max() < 0.1
    for row in range(40):
        for slot in range(5):
            assert len(turns[row][slots[row] == slot].unique()) <= 1
    assert any(len(turns[row].unique()) > 1 for row in range(40)), "each class has its own"


@pytest.mark.parametrize("test_rotations", [True, False])
def test_turns_are_an_option_of_the_test(drawings, test_rotations):
    task = make(jitter=False, rotations=not test_rotations, test_rotations=test_rotations, episode_length=10)
    assert bool(turns_of(task.batch(TEST, DRAWS, 0, 10), drawings).any()) == test_rotations
    assert bool(turns_of(task.batch(TRAIN, DRAWS, 0, 10), drawings).any()) != test_rotations


def test_jitter_stays_within_its_bounds(monkeypatch):
    """A dot in the middle moves by the shift alone; one at the edge also by the turn."""
    images = np.zeros((60, 20, 40, 40), np.uint8)
    images[:, :, 19:21, 19:21] = 255
    names = [f"A/{k:02}" for k in range(60)]
    dots = Drawings(images, names, np.arange(60) >= 40)
    monkeypatch.setattr(Source, "load", lambda self, side: dots)
    image = make().batch(TRAIN, DRAWS, 0, 40).inputs["image"].flatten(0, 2)
    place = torch.arange(20.0)
    mass = image.sum((1, 2))
    for axis in (1, 2):
        centre = (image.sum(axis) * place).sum(1) / mass - 9.5
        limit = 20 * 10 / 105
        assert limit * 0.95 < centre.abs().max() < limit * 1.1
        assert centre.mean().abs() < 0.1
        assert centre.std() == pytest.approx(limit / math.sqrt(3), rel=0.1), "uniform"

    # A level bar, whose slope is the turn.
    images[:] = 255 * np.exp(-0.5 * ((np.arange(40)[:, None] - 19.5) / 3) ** 2)
    batch = make(rotations=False, episode_length=20).batch(TRAIN, DRAWS, 0, 20)
    image = batch.inputs["image"].flatten(0, 2)
    rows = (image * place[:, None]).sum(1) / image.sum(1)
    angle = torch.atan2(rows[:, 13] - rows[:, 6], torch.tensor(7.0))
    assert 0.9 * math.pi / 16 < angle.abs().max() < 1.1 * math.pi / 16


# ---------------------------------------------------------------------- the split


def used(task, split, episodes=60):
    return set(task.batch(split, DRAWS, 0, episodes).extra["character"].flatten().tolist())


def test_no_character_is_in_two_parts(drawings):
    task = make()
    parts = [used(task, Split(name)) for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [32, 8, 20]
    assert len(set.union(*parts)) == 60
    assert parts[2] == set(np.nonzero(drawings.held_out)[0])


def test_without_validation_characters_all_are_trained_on_and_validated_with():
    task = make(val_characters=0)
    assert used(task, TRAIN) == used(task, Split("val"))
    assert task.facts()["train_classes"] == 40


@pytest.mark.parametrize(
    ("split", "val", "sizes"),
    [("santoro", 80, (1120, 80, 423)), ("santoro", 0, (1200, 1200, 423)), ("lake", 80, (884, 80, 659))],
)
def test_the_splits_of_omniglot(tmp_path, monkeypatch, split, val, sizes):
    names = sorted(f"Alphabet{k % 50:02}/character{k // 50:02}" for k in range(1623))
    whole = Drawings(np.zeros((1623, 20, 1, 1), np.uint8), names, np.arange(1623) >= 964)
    monkeypatch.setattr(Source, "load", lambda self, side: whole)
    for part in omniglot.CHARACTERS:
        (tmp_path / part).mkdir()
    task = make(source="omniglot", root=str(tmp_path), split=split, val_characters=val)
    task.prepare()
    facts = task.facts()
    assert (facts["train_classes"], facts["val_classes"], facts["test_classes"]) == sizes
    assert (facts["source"], facts["root"], facts["split"]) == ("omniglot", str(tmp_path), split)


def test_sets_and_their_sizes():
    task = make(val_episodes=3, test_episodes=4)
    assert task.splits("train") == [Split("train")]
    assert task.splits("val") == [Split("val", 3)]
    assert task.splits("test") == [Split("test", 4)]


def test_the_label_says_which_source(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    label = registry.get("task", "omniglot").label
    assert label({"name": "omniglot", "source": "glyphs"}) == "omniglot-glyphs"
    for part in omniglot.CHARACTERS:
        (tmp_path / part).mkdir()
    assert label({"name": "omniglot", "root": str(tmp_path)}) == "omniglot"
    caplog.clear()
    make(source="auto", root=str(tmp_path), split="lake").prepare()
    assert str(tmp_path) in caplog.text


def test_a_stand_in_is_said_loudly(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("MANNLAB_DATA", raising=False)
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path))
    task = make(source="auto")
    task.prepare()
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert "NOT OMNIGLOT" in caplog.text
    assert type(task).label({"name": "omniglot"}) == "omniglot-glyphs"
    assert task.facts()["source"] == "glyphs"


# ---------------------------------------------------------------------- the score


def episode(instances, groups=1):
    """A batch of one row per list of instances; the truth is 0 everywhere."""
    shape = (len(instances), len(instances[0]))
    targets = torch.zeros(*shape, groups, dtype=torch.int64)
    return Batch({}, targets, torch.ones(shape), extra={"instance": torch.tensor(instances)})


def rates(score):
    return {name: float(total / count) for name, (total, count) in score.metrics.items() if count > 0}


def test_loss_is_nats_a_sequence():
    score = make().score(torch.zeros(2, 3, 1, 5), episode([[1, 2, 3], [1, 1, 1]]))
    assert float(score.loss) == pytest.approx(3 * math.log(5))
    score = make(labels="five_letters").score(torch.zeros(2, 3, 5, 5), episode([[1, 2, 3], [1, 1, 1]], 5))
    assert float(score.loss) == pytest.approx(3 * 5 * math.log(5))


def test_accuracy_by_instance():
    logits = torch.zeros(2, 4, 1, 5)
    logits[..., 0] = 1
    logits[0, 0, 0, 3] = logits[1, 1, 0, 3] = logits[0, 3, 0, 3] = 2  # wrong: instances 1, 2 and 11
    score = make().score(logits, episode([[1, 2, 10, 11], [1, 2, 10, 12]]))
    assert rates(score) == {
        "accuracy_percent": 62.5,
        "accuracy_1st_instance_percent": 50.0,
        "accuracy_2nd_instance_percent": 50.0,
        "accuracy_10th_instance_percent": 100.0,
    }
    assert [float(score.metrics[f"accuracy_{n}_instance_percent"][1]) for n in ("1st", "3rd")] == [2.0, 0.0]


def test_all_letters_must_be_right():
    logits = torch.zeros(1, 2, 5, 5)
    logits[..., 0] = 1
    logits[0, 1, 4, 2] = 2
    score = make(labels="five_letters").score(logits, episode([[1, 2]], 5))
    assert rates(score)["accuracy_1st_instance_percent"] == 100
    assert rates(score)["accuracy_2nd_instance_percent"] == 0


def test_the_objective_is_among_the_metrics():
    task = make()
    batch = task.batch(TRAIN, DRAWS, 0, 2)
    score = task.score(one_hot(batch.targets, 5).float(), batch)
    assert (task.objective.metric, task.objective.mode) == ("accuracy_2nd_instance_percent", "max")
    assert rates(score)[task.objective.metric] == 100
    assert len(score.metrics) == 11


def test_half_precision_logits_are_scored_in_full():
    logits = torch.full((1, 200, 1, 5), 8.0)
    batch = episode([[1] * 200])
    assert float(make().score(logits.bfloat16(), batch).loss) == pytest.approx(200 * math.log(5), rel=1e-5)


@pytest.mark.parametrize(("labels", "said"), [("one_hot", {"1", "2", "3"}), ("five_letters", None)])
def test_the_picture_is_an_episode(labels, said):
    task = make(labels=labels, classes=3)
    batch = task.batch(TRAIN, DRAWS, 0, 2)
    logits = one_hot(batch.targets, task.count).to(torch.bfloat16)
    figures = task.pictures(logits, batch)
    assert list(figures) == ["episode", "confusion"]
    labels = {axis.get_title().split()[0] for axis in figures["episode"].axes}
    assert labels == said or (said is None and all(len(s) == 5 and set(s) <= set("abcde") for s in labels))
    assert "30 of 30 right" in [text.get_text() for text in figures["episode"].texts]


@pytest.mark.parametrize(("labels", "size"), [("one_hot", 3), ("five_letters", 5)])
def test_the_confusion_counts_answers_for_labels_at_each_instance(labels, size):
    task = make(labels=labels, classes=3, episode_length=40)
    batch = task.batch(TRAIN, DRAWS, 0, 6)
    answers = (batch.targets + (batch.extra["instance"] == 1).long()[..., None]) % size
    counts = confusion(answers, batch, size)
    assert list(counts) == ["instance 1", "instance 2", "instance 5", "instance 10"]
    for title, table in counts.items():
        here = (batch.extra["instance"] == int(title.split()[1])) & (batch.scored > 0)
        assert table.sum() == here.sum() * task.groups
        expected = torch.eye(size).roll(1, 1) if title == "instance 1" else torch.eye(size)
        assert torch.equal(table.sum(1, keepdim=True) * expected, table.float())


# ---------------------------------------------------------------------- few-shot sets


def few(ways, shots, **options):
    task = make(episodes=[[ways, shots]], **options)
    split = task.splits("test")[-1]
    return task, split, task.batch(split, DRAWS, 0, 40)


@pytest.mark.parametrize(("ways", "shots", "queries"), [(5, 1, 1), (5, 5, 1), (3, 2, 4), (2, 1, 1)])
def test_shots_of_each_class_in_any_order_then_queries(ways, shots, queries):
    _, split, batch = few(ways, shots, queries=queries)
    assert split == Split("test", 400, label=f"{ways}way_{shots}shot")
    shown = ways * shots
    slots = batch.extra["class"]
    assert slots.shape == (40, shown + queries)
    assert (one_hot(slots[:, :shown], ways).sum(1) == shots).all()
    assert len({tuple(row) for row in slots[:, :shown].tolist()}) > (1 if shown == 2 else 20), "any order"
    assert set(slots[:, shown:].flatten().tolist()) == set(range(ways))
    assert batch.scored[:, :shown].sum() == 0
    assert (batch.scored[:, shown:] == 1).all()
    assert batch.valid is None


def test_a_query_s_label_is_never_shown():
    _, _, batch = few(5, 2, queries=3)
    label = batch.inputs["label"]
    assert label[:, 0].sum() == 0
    assert torch.equal(label[:, 1:11].argmax(-1), batch.targets[:, :10, 0]), "each shot's, one step later"
    assert (label[:, 1:11].sum(-1) == 1).all()
    assert label[:, 11:].sum() == 0


def test_no_drawing_is_shown_and_asked(drawings):
    task, split, _ = few(3, 9, queries=11, rotations=False, test_rotations=False, jitter=False)
    batch = task.batch(split, DRAWS, 0, 10)
    for row in range(10):
        images = batch.inputs["image"][row].flatten(1)
        assert len(images.unique(dim=0)) == len(images)


def test_few_shot_sets_have_a_metric_of_their_name():
    task, _, batch = few(5, 1)
    logits = one_hot(batch.targets, 5).float()
    logits[:10] = logits[:10].roll(1, -1)
    logits[:, :5] = 0
    named = rates(task.score(logits, batch))
    assert named["accuracy_5way_1shot_percent"] == named["accuracy_2nd_instance_percent"] == 75
    assert (
        "accuracy_5way_1shot_percent"
        not in task.score(torch.zeros(2, 50, 1, 5), task.batch(TRAIN, DRAWS, 0, 2)).metrics
    )


def test_few_shot_strips_show_no_answer_where_none_was_asked():
    task, _, batch = few(3, 2)
    figures = task.pictures(one_hot(batch.targets, 5).float(), batch)
    texts = [axis.get_xlabel() for axis in figures["episode"].axes]
    assert texts[:6] == [""] * 6
    assert texts[6].endswith("✓")
    assert "1 of 1 right" in [text.get_text() for text in figures["episode"].texts]
    assert len(figures["confusion"].axes) == 2, "the third instance, and the bar of colours"


def test_the_online_protocol_is_not_changed_by_few_shot_sets():
    plain_task, task = make(), make(episodes=[[5, 1]], test_classes=[3])
    assert plain_task.splits("val") == task.splits("val")
    for split in (TRAIN, TEST):
        for one, other in zip(
            everything(plain_task.batch(split, DRAWS, 0, 3)),
            everything(task.batch(split, DRAWS, 0, 3)),
            strict=True,
        ):
            assert torch.equal(one, other)


# ---------------------------------------------------------------------- many classes


def test_test_sets_with_other_numbers_of_classes():
    task = make(classes=6, test_classes=[3, 12], labels="five_letters", test_episodes=10)
    assert task.trained_size == 6
    splits = task.splits("test")
    assert [(s.label, s.level, s.samples) for s in splits] == [
        ("", None, 10),
        ("classes_3", 3, 2),
        ("classes_12", 12, 2),
    ]
    for split in splits[1:]:
        batch = task.batch(split, DRAWS, 0, 3)
        assert batch.targets.shape[1] == 10 * split.level
        for row in range(3):
            pairs = {
                (int(character), tuple(label))
                for character, label in zip(
                    batch.extra["character"][row], batch.targets[row].tolist(), strict=True
                )
            }
            assert len(pairs) == len({label for _, label in pairs}) == len(batch.extra["class"][row].unique())


def test_more_classes_than_characters_turn_them(drawings):
    """Twenty characters are held out; turned, they make eighty classes."""
    task = make(classes=70, val_characters=20, labels="five_letters", jitter=False, episode_length=200)
    batch = task.batch(TEST, DRAWS, 0, 2)
    turns = turns_of(batch, drawings)
    for row in range(2):
        slots = batch.extra["class"][row].tolist()
        kinds = set(zip(batch.extra["character"][row].tolist(), turns[row].tolist(), slots, strict=True))
        assert len(kinds) == len({(c, t) for c, t, _ in kinds}) == len(set(slots)) > 50, "a class each"


def test_a_curriculum_to_hundreds_of_classes():
    task = make(classes=70, val_characters=20, labels="five_letters", curriculum={"max": 40})
    split = Split("train", ceiling=40)
    batch = task.batch(split, DRAWS, 0, 16)
    classes = int(task.class_counts(split, DRAWS, 0, 1)[0])
    assert batch.inputs["image"].shape[:2] == (16, 10 * classes)
    with pytest.raises(
        ConfigError, match=r"task\.classes=120 is more than the 20 characters for test, each in"
    ):
        make(classes=120, val_characters=0, labels="five_letters").prepare()


@pytest.mark.parametrize("seed", range(5))
def test_instances_are_those_of_a_loop(seed):
    slots = np.random.default_rng(seed).integers(0, 4, (3, 17))
    expected = [[row[:step].tolist().count(slot) for step, slot in enumerate(row)] for row in slots]
    assert instances(slots).tolist() == expected


def test_what_the_data_are_is_logged_in_words(caplog):
    with caplog.at_level("INFO"):
        make().prepare()
    (line,) = (text for text in caplog.messages if text.startswith("task omniglot"))
    assert line.startswith("task omniglot: source glyphs, split alphabets, alphabets ")
    assert not set("{}'") & set(line)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"classes": 1}, r"task\.classes: 1"),
        ({"episode_length": 0}, r"task\.episode_length: 0"),
        ({"val_episodes": 0}, r"task\.val_episodes"),
        ({"test_episodes": 0}, r"task\.test_episodes"),
        ({"val_characters": -1}, r"task\.val_characters"),
        ({"image_size": 32}, r"task\.image_size: 32(.|\n)*20 \| 28"),
        ({"labels": "numbers"}, r"task\.labels(.|\n)*one_hot \| five_letters"),
        ({"encoder": "vit"}, r"task\.encoder(.|\n)*flat \| conv"),
        ({"split": "vinyals"}, r"task\.split(.|\n)*santoro \| lake"),
        ({"source": "mnist"}, r"task\.source(.|\n)*auto \| omniglot \| glyphs"),
        ({"labels": "five_letters", "classes": 3126}, r"3126 is more than the 3125 strings"),
        ({"queries": 0}, r"task\.queries: 0"),
        ({"test_classes": [1]}, r"task\.test_classes: 1"),
        ({"test_classes": [6]}, r"task\.test_classes: 6 is more than the 5 labels of task\.classes"),
        ({"episodes": [[6, 1]]}, r"task\.episodes: 6 is more than the 5 labels"),
        ({"episodes": [[20, 1]]}, r"Use task\.classes=20, or task\.labels=five_letters\."),
        ({"episodes": [[1, 1]]}, r"task\.episodes: 1 classes"),
        ({"episodes": [[5]]}, r"task\.episodes: \[5\](.|\n)*pairs"),
        ({"episodes": [[5, 0]]}, r"task\.episodes: 0 shots"),
        ({"episodes": [[5, 18]], "queries": 3}, r"18 shots and task\.queries=3"),
        ({"episodes": 5}, r"task\.episodes: 5"),
    ],
)
def test_impossible_options_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            OFF | {"classes": 21, "val_characters": 0},
            r"task\.classes=21 is more than the 20 characters for test",
        ),
        (
            OFF | {"classes": 9},
            r"task\.classes=9 is more than the 8 characters for val(.|\n)*task\.val_characters",
        ),
        (OFF | {"val_characters": 36}, r"task\.val_characters=36 leaves 4 of 40(.|\n)*task\.classes=5"),
        ({"val_characters": 99}, r"leaves 0 of 40"),
        (
            OFF | {"test_classes": [21], "labels": "five_letters"},
            r"task\.test_classes=21 is more than the 20 characters for test",
        ),
        (
            OFF | {"episodes": [[21, 1]], "labels": "five_letters"},
            r"task\.episodes=21 is more than the 20 characters for test",
        ),
        (
            {"source": "omniglot", "root": "/nowhere/at/all"},
            r"task\.root: there is no folder /nowhere/at/all",
        ),
    ],
)
def test_more_than_the_data_has_names_both_numbers(options, named):
    with pytest.raises(ConfigError, match=named):
        make(**options).prepare()


def test_a_source_that_does_not_exist_is_refused_by_the_label():
    with pytest.raises(ConfigError, match=r"task\.source: 'mnist'"):
        registry.get("task", "omniglot").label({"name": "omniglot", "source": "mnist"})


# ---------------------------------------------------------------------- the real thing


@pytest.fixture
def real(monkeypatch):
    folder = os.environ.get("MANNLAB_DATA")
    found = omniglot.find(Path(folder)) if folder else None
    if found is None:
        pytest.skip(
            "needs Omniglot: set MANNLAB_DATA to the folder that holds omniglot/images_background.zip"
        )
    monkeypatch.undo()
    return found


@pytest.mark.slow
def test_real_omniglot(real):
    task = make(source="omniglot", root=str(real), val_characters=80)
    facts = task.facts()
    assert (facts["alphabets"], facts["train_classes"], facts["test_classes"]) == (50, 1120, 423)
    batch = task.batch(TRAIN, DRAWS, 0, 16)
    image = batch.inputs["image"]
    assert 0.04 < image.mean() < 0.15, "ink on paper"
    assert (image.flatten(2).amax(2) > 0.4).all(), "none is blank"


# ---------------------------------------------------------------------- a curriculum


@pytest.mark.parametrize("options", [{}, {"labels": "five_letters"}, {"episode_length": 33}])
def test_an_episode_of_any_size_depends_on_its_index_alone(options):
    """Batches hold episodes of several sizes: what is drawn for one must not depend on the largest."""
    task, split = make(classes=6, **options), Split("train", ceiling=5)
    whole = task.batch(split, DRAWS, 10, 40)
    for start, count in ((10, 6), (16, 16), (31, 2), (49, 1)):
        part = task.batch(split, DRAWS, start, count)
        rows, steps = slice(start - 10, start - 10 + count), part.targets.shape[1]
        for mine, all_of_it in zip(everything(part), everything(whole), strict=True):
            real = part.scored.bool()
            assert torch.equal(mine[real], all_of_it[rows, :steps][real])


@pytest.mark.parametrize("length", [None, 90, 12])
def test_smaller_episodes_are_shorter_in_proportion(length):
    task = make(classes=6, episode_length=length)
    batch = task.batch(Split("train", ceiling=5), DRAWS, 0, 16 * 30)
    for row in range(0, 16 * 30, 16):
        classes = int(task.class_counts(Split("train", ceiling=5), DRAWS, row, 1)[0])
        assert batch.scored[row].sum() == math.ceil((length or 60) * classes / 6)
    assert batch.scored.sum(1).max() == math.ceil((length or 60) * 5 / 6)


def test_at_its_end_a_curriculum_draws_what_is_drawn_without_one():
    task = make(classes=6)
    batch, plain = (task.batch(Split("train", ceiling=most), DRAWS, 3, 20) for most in (6, None))
    assert all(torch.equal(*pair) for pair in zip(everything(batch), everything(plain), strict=True))
    assert batch.valid is None
