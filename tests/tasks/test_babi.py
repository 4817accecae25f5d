"""The bAbI task: streams, order, scores, and which stories they are of."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mannlab import registry
from mannlab.checks import check_task
from mannlab.contracts import Bag, Batch, Split, Token
from mannlab.datasets import babi, questions
from mannlab.draws import Draws
from mannlab.errors import CheckpointError, ConfigError, DataError
from mannlab.model import assemble
from mannlab.training.checkpoints import check_data

TRAIN, DRAWS = Split("train"), Draws(0, "train")
DATA = os.environ.get("MANNLAB_DATA")
real = pytest.mark.skipif(not DATA or not babi.find(Path(DATA)), reason="no bAbI in $MANNLAB_DATA")


def story(person: str, room: str, number: int) -> str:
    return (
        f"1 {person} went to the {room}.\n2 Where is {person}?\t{room}\t1\n"
        f"3 {person} took the item{number}.\n4 What has {person}?\titem{number},{room}\t3 1\n"
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Tasks 1 to 20 with ten stories each; a cache of this test's own."""
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "en"
    folder.mkdir(parents=True)
    for task in range(1, 21):
        for split in ("train", "test"):
            who = "Ann" if split == "train" else "Eve"
            text = "".join(story(who, ["hall", "den"][i % 2], task) for i in range(10))
            (folder / f"qa{task}_x_{split}.txt").write_text(text)
    return tmp_path / "data"


def make(root=None, **options):
    given = {"source": "generated"} if root is None else {"source": "babi", "root": str(root)}
    return registry.build("task", "babi", **{"size": "1k", **given} | options)


def spelt(task, batch: Batch, row: int) -> list[str]:
    """The steps of a sequence in words."""
    words, symbols = task.corpus.vocabulary, batch.inputs["text"][row]
    size = len(symbols) if batch.valid is None else int(batch.valid[row].sum())
    steps = symbols[:size].reshape(size, -1).tolist()
    return [" ".join(words[symbol] for symbol in step if symbol >= 0) for step in steps]


@pytest.mark.parametrize("steps", ["sentences", "words"])
def test_contract(steps):
    check_task("babi", source="generated", size="1k", steps=steps)


def test_contract_on_bAbI(root):
    check_task("babi", source="babi", root=str(root), size="1k")


def test_weights_of_other_words_or_answers_are_refused(root):
    one, other, same = (make(root, tasks=[task]) for task in (15, 16, 15))
    assert one.spec == other.spec
    saved = {"fingerprint": one.fingerprint}
    check_data(saved, same, Path("last.ckpt"))
    with pytest.raises(CheckpointError, match=r"last\.ckpt was trained with another vocabulary"):
        check_data(saved, other, Path("last.ckpt"))


# ---------------------------------------------------------------------- streams


def test_a_sentence_is_a_step(root):
    task = make(root, tasks=[7, 2])
    assert task.corpus.groups == ["task_2", "task_7"]
    assert task.spec.inputs["text"] == Bag(len(task.corpus.vocabulary), 6, 64, True)
    batch = task.batch(TRAIN, DRAWS, 0, 4)
    for row in range(4):
        number = [2, 7][int(batch.extra["group"][row])]
        first, ask, second, more = spelt(task, batch, row)
        room = first.split()[-1]
        assert first == f"ann went to the {room}"
        assert (ask, second, more) == ("where is ann ?", f"ann took the item{number}", "what has ann ?")
        assert batch.scored[row].tolist() == [0, 1, 0, 1]
        answers = [task.corpus.answers[i] for i in batch.targets[row, batch.scored[row].bool(), 0]]
        assert answers == [room, f"item{number},{room}"]


def test_a_word_is_a_step(root):
    task = make(root, tasks=[2], steps="words")
    assert task.spec.inputs["text"] == Token(len(task.corpus.vocabulary))
    batch = task.batch(Split("val", 1), DRAWS, 0, 1)
    words = spelt(task, batch, 0)
    room = words[4]
    wanted = f"ann went to the {room} . where is ann ? ann took the item2 . what has ann ?"
    assert " ".join(words) == wanted
    scored = batch.scored[0].nonzero().flatten().tolist()
    assert [words[step] for step in scored] == ["?", "?"]
    assert task.corpus.answers[int(batch.targets[0, scored[0], 0])] == room


def test_both_kinds_of_steps_tell_the_same_stories():
    sentences, words = make(), make(steps="words")
    one, two = (task.batch(Split("test", 40), DRAWS, 0, 40) for task in (sentences, words))
    for row in range(40):
        told = " ".join(spelt(sentences, one, row)).split()
        assert told == [word for word in spelt(words, two, row) if word != "."]
        assert torch.equal(one.targets[row][one.scored[row] > 0], two.targets[row][two.scored[row] > 0])


def test_padding_is_empty():
    task = make(families=["two_facts", "counting"])
    batch = task.batch(Split("val", 40), DRAWS, 0, 30)
    assert batch.valid is not None
    assert (batch.inputs["text"][batch.valid == 0] == -1).all()
    assert (batch.inputs["text"][batch.valid == 1].amax(-1) >= 0).all()
    assert batch.scored[batch.valid == 0].sum() == 0


def test_once_through_training_is_every_story_once_but_the_last_few():
    task = make()
    part = task.parts["train"]
    size = len(part) // 32 * 32
    samples = np.arange(3 * size)
    stories = task._drawn(part, DRAWS, samples).reshape(3, size)
    for epoch in stories:
        assert len(set(epoch.tolist())) == size
    assert not np.array_equal(stories[0], stories[1])
    assert set(stories.flatten().tolist()) == set(range(len(part))), "what is left over changes"
    assert np.array_equal(task._drawn(part, DRAWS, samples[100:]), stories.flatten()[100:])


def test_batches_are_of_like_lengths_and_of_all_tasks():
    task = make()
    part = task.parts["train"]
    stories = task._drawn(part, DRAWS, np.arange(len(part) // 32 * 32))
    rows = part.lengths[stories].reshape(-1, 32)
    mixed = np.random.default_rng(0).permutation(part.lengths)[: rows.size].reshape(-1, 32)
    spread = (rows.max(1, keepdims=True) - rows).mean()
    assert spread < 0.5 * (mixed.max(1, keepdims=True) - mixed).mean()


def test_validation_is_a_tenth_of_training_and_not_trained_on(root):
    task = make(root)
    counts = {split: len(part) for split, part in task.parts.items()}
    assert counts == {"train": 20 * 9, "val": 20, "test": 20 * 10}
    assert sorted(task.parts["val"].groups.tolist()) == list(range(20))
    same = make(root)
    for split, part in task.parts.items():
        assert np.array_equal(part.symbols, same.parts[split].symbols)


def set_aside(task, group: str) -> list[list[str]]:
    """The lines of a group's stories of validation."""
    part, words = task.corpus.parts["val"], task.corpus.vocabulary
    of = np.repeat(part.groups, np.diff(part.starts)) == task.corpus.groups.index(group)
    return [[words[word] for word in row if word >= 0] for row in part.words[of].tolist()]


def test_the_stories_set_aside_do_not_depend_on_the_other_tasks(root):
    things = [f"{one} {other}" for one in "abcdefg" for other in "abcdefg"]
    for name in ("qa3_x_train.txt", "qa5_x_train.txt"):
        told = "".join(f"1 Ann took {thing}.\n2 What has Ann?\t{thing}\t1\n" for thing in things)
        (root / "en" / name).write_text(told)
    together = make(root, tasks=[1, 3, 5])
    assert set_aside(together, "task_3") == set_aside(make(root, tasks=[3]), "task_3")
    assert set_aside(together, "task_5") == set_aside(make(root, tasks=[2, 5]), "task_5")
    assert set_aside(together, "task_3") != set_aside(together, "task_5")


def test_the_tales_set_aside_do_not_depend_on_the_other_families():
    alone, among = make(families=["counting"]), make(families=["two_facts", "counting"])
    assert set_aside(alone, "counting") == set_aside(among, "counting")


def test_words_and_answers_that_training_lacks_are_unknown(root):
    (root / "en" / "qa4_x_test.txt").write_text(story("Eve", "moon", 4))
    task = make(root, tasks=[4])
    batch = task.batch(Split("test", 1), DRAWS, 0, 1)
    assert spelt(task, batch, 0)[0] == "<unknown> went to the <unknown>"
    logits = torch.zeros(1, 4, 1, len(task.corpus.answers))
    logits[..., questions.UNKNOWN] = 9
    wrong, count = task.score(logits, batch).metrics["error_percent"]
    assert wrong / count == 100, "even an answer of 'unknown' is wrong"


# ---------------------------------------------------------------------- scores


def test_errors_are_counted_for_each_task(root):
    task = make(root, tasks=[1, 2, 5])
    batch = task.batch(Split("test", 30), DRAWS, 0, 20)
    groups = batch.extra["group"]
    assert sorted(set(groups.tolist())) == [0, 1]
    logits = torch.nn.functional.one_hot(batch.targets, len(task.corpus.answers)).float() * 9
    first = (groups == 0).nonzero().flatten()[:3]
    logits[first, 1] = 0  # wrong at the first question, in three stories of task 1
    logits[first, 1, 0, questions.UNKNOWN] = 9
    # Training has none of these answers in task 5 alone; here all are known.
    score = task.score(logits, batch)
    means = {name: float(total / count) for name, (total, count) in score.metrics.items()}
    assert means["error_task_1_percent"] == pytest.approx(100 * 3 / 20)
    assert means["error_task_2_percent"] == 0
    assert np.isnan(means["error_task_5_percent"])
    assert means["error_percent"] == pytest.approx(100 * 3 / 40)
    derived = task.derive(means)
    assert derived == {"run_mean_error_percent": pytest.approx(7.5), "failed_tasks_count": 1.0}


def test_five_percent_is_not_failed(root):
    task = make(root, tasks=[1, 2])
    means = {"error_task_1_percent": 5.0, "error_task_2_percent": 5.1}
    assert task.derive(means)["failed_tasks_count"] == 1


def test_the_loss_is_nats_a_story():
    task = make()
    batch = task.batch(TRAIN, DRAWS, 0, 8)
    logits = torch.zeros(*batch.targets.shape, len(task.corpus.answers))
    score = task.score(logits, batch)
    assert score.loss == pytest.approx(5 * np.log(len(task.corpus.answers)))


def test_generated_stories_have_names_of_their_own(root):
    tales, tasks = make(), make(root)
    for task, other in ((tales, tasks), (tasks, tales)):
        batch = task.batch(Split("val", 8), DRAWS, 0, 4)
        names = set(task.score(torch.zeros(*batch.targets.shape, len(task.corpus.answers)), batch).metrics)
        assert names.isdisjoint({f"error_{group}_percent" for group in other.corpus.groups})
        assert task.objective.shown != other.objective.shown
    assert tales.facts()["groups"] == ["single_fact", "two_facts", "yes_no", "counting", "earlier_place"]


# ---------------------------------------------------------------------- where stories come from


def test_the_label_says_which_source(root, monkeypatch):
    monkeypatch.delenv("MANNLAB_DATA", raising=False)
    label = registry.get("task", "babi").label
    assert label({"name": "babi", "source": "generated"}) == "babi-generated"
    assert label({"name": "babi"}) == "babi-generated"
    assert label({"name": "babi", "root": str(root)}) == "babi"
    monkeypatch.setenv("MANNLAB_DATA", str(root))
    assert label({"name": "babi"}) == "babi"


def test_auto_says_loudly_that_it_is_not_bAbI(root, monkeypatch, caplog):
    monkeypatch.delenv("MANNLAB_DATA", raising=False)
    with caplog.at_level(logging.WARNING):
        facts = registry.build("task", "babi", size="1k").facts()
    assert facts["source"] == "generated"
    assert "GENERATED, NOT bAbI" in caplog.text


def test_facts_tell_what_was_learnt(root, caplog):
    facts = make(root, tasks=[19]).facts()
    assert (facts["source"], facts["root"], facts["together"]) == ("babi", str(root), "one")
    assert (facts["train_questions"], facts["test_stories"]) == (18, 10)
    assert facts["not_as_released"] == ["qa19_test", "qa19_train"]
    assert "is not as released: qa19_test, qa19_train" in caplog.text
    assert make(root).facts()["together"] == "joint"


def test_the_second_time_comes_from_the_cache_until_a_file_changes(root, monkeypatch):
    first = make(root, tasks=[1])
    with monkeypatch.context() as patch:
        patch.setattr(babi, "parse", None)
        assert make(root, tasks=[1]).corpus.vocabulary == first.corpus.vocabulary
    path = root / "en" / "qa1_x_train.txt"
    path.write_text(path.read_text().replace("hall", "attic"))
    assert "attic" in make(root, tasks=[1]).corpus.vocabulary


def test_malformed_lines_are_named_or_counted(root):
    path = root / "en" / "qa6_x_train.txt"
    lines = path.read_text().splitlines()
    lines[9] = "2 Where is Ann?\thall"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"qa6_x_train\.txt, line 10 is malformed"):
        make(root)
    facts = make(root, on_error="skip").facts()
    assert (facts["skipped_lines"], facts["skipped_stories"]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": [0]}, r"task\.tasks: 0 is not allowed(.|\n)*1 to 20"),
        ({"tasks": [21]}, r"task\.tasks: 21"),
        ({"tasks": []}, r"task\.tasks: none is named"),
        ({"families": ["single_facts"]}, r"no 'single_facts'(.|\n)*Did you mean 'single_fact'"),
        ({"tasks": [1]}, r"task\.tasks: these are numbers of bAbI's"),
        ({"embedding": 0}, r"task\.embedding: 0"),
        ({"size": "2k"}, r"task\.size(.|\n)*1k \| 10k"),
        ({"steps": "words", "embedding": 100}, r"task\.embedding: 100 is not allowed with task\.steps=words"),
        ({"steps": "words", "positions": False}, r"task\.positions: False is not allowed"),
        ({"steps": "letters"}, r"task\.steps(.|\n)*sentences \| words"),
        ({"source": "babi", "root": "/nowhere/at/all"}, r"task\.root: there is no folder"),
    ],
)
def test_impossible_options_name_the_key(options, said):
    with pytest.raises(ConfigError, match=said):
        make(**options)


def test_families_are_not_for_bAbI(root):
    with pytest.raises(ConfigError, match=r"task\.families: these are of generated stories"):
        make(root, families=["yes_no"])


def test_an_empty_root_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no bAbI"):
        make(source="babi", root=str(tmp_path))


# ---------------------------------------------------------------------- learning


@pytest.mark.slow
def test_a_memory_network_learns_to_answer():
    torch.manual_seed(0)
    memory = {"name": "memory_network", "width": 32, "hops": 2}
    task = {"name": "babi", "source": "generated", "families": ["single_fact"], "size": "1k"}
    model, made = assemble(
        {"controller": {"name": "feedforward", "layers": 0}, "memory": memory, "task": task}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(250):
        batch = made.batch(TRAIN, DRAWS, 32 * step, 32)
        loss = made.score(model(batch.inputs, batch.valid), batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    batch = made.batch(Split("test", 200), DRAWS, 0, 200)
    wrong, count = made.score(model(batch.inputs, batch.valid), batch).metrics["error_percent"]
    assert wrong / count < 10


@real
def test_the_real_one_has_as_many_questions_as_they_say():
    task = registry.build("task", "babi", source="babi", size="1k", root=DATA)
    facts = task.facts()
    assert facts["not_as_released"] == []
    assert facts["train_questions"] + facts["val_questions"] == 20_000
    assert facts["test_questions"] == 20_000
    counts = np.bincount(task.parts["test"].groups, minlength=20)
    assert counts[3] == counts[15] == counts[18] == 1000
    assert "w,w" in task.corpus.answers


@pytest.mark.parametrize("memory", ["memory_network", "dense"])
def test_a_picture_shows_what_the_last_question_looks_at(memory):
    parts = {"memory": {"name": memory, "slots": 9}, "controller": {"name": "lstm", "hidden": 8}}
    task = {"name": "babi", "source": "generated", "size": "1k"}
    model, task = assemble(parts | {"task": task})
    batch = task.batch(Split("val"), Draws(0, "val"), 0, 1)
    trace = {}
    model(batch.inputs, batch.valid, trace=trace)
    shown = {title: torch.stack(steps, 1)[0] for title, steps in trace.items()}
    figure = task.traced_pictures(shown, batch)["question"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    step = int(batch.scored[0].nonzero()[-1])
    assert labels == spelt(task, batch, 0)[:step]
    assert figure.axes[0].get_title(loc="right").startswith(spelt(task, batch, 0)[step])
    assert task.traced_pictures({}, batch) == {}


def test_questions_alone_follow_the_statements_before_them():
    whole = registry.build("task", "babi", source="generated", size="1k")
    alone = registry.build("task", "babi", source="generated", size="1k", questions="alone", recent=3)
    story, kept = whole.corpus.parts["val"], alone.parts["val"]
    wanted = []
    for start, end, group in zip(story.starts[:-1], story.starts[1:], story.groups, strict=True):
        before = []
        for line in range(start, end):
            words = story.words[line].tolist()
            if story.answers[line] < 0:
                before.append(words)
            else:
                wanted.append((group, [*before[-3:], words], story.answers[line]))
    assert len(kept) == len(wanted) > len(story.groups)
    for sample, (group, lines, answer) in enumerate(wanted):
        here = slice(kept.starts[sample], kept.starts[sample + 1])
        assert kept.symbols[here].tolist() == lines
        assert kept.answers[here].tolist() == [-1] * (len(lines) - 1) + [answer]
        assert kept.groups[sample] == group


def test_recent_goes_with_questions_alone():
    with pytest.raises(ConfigError, match=r"task\.recent: 5 is not allowed"):
        registry.build("task", "babi", source="generated", recent=5)
