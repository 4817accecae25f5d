"""Translation: one stream of both sentences, the same for any batch, and scored as a reader would."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mannlab import registry
from mannlab.checks import check_task
from mannlab.contracts import Continuation
from mannlab.draws import Draws
from mannlab.errors import ConfigError, DataError

pytest.importorskip("tokenizers")
pytest.importorskip("sacrebleu")

REAL = os.environ.get("MANNLAB_DATA", "")
NUMBERS = {"source": "numbers", "pairs": 300, "largest": 9999, "vocabulary": 300, "bucket": 8}


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANNLAB_DATA", raising=False)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    registry.load_builtins()

    def build(**options: Any) -> Any:
        return registry.build_from("task", {"name": "translation", **options})

    return build


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Sixty pairs as two files for training, and as one file for the rest."""
    sources = [f"the {'big ' * (i % 5)}cat number {i}" for i in range(60)]
    targets = [f"die {'große ' * (i % 5)}Katze Nummer {i}" for i in range(60)]
    (tmp_path / "a.en").write_text("\n".join(sources) + "\n")
    (tmp_path / "a.de.gz").write_bytes(gzip.compress("\n".join(targets).encode()))
    (tmp_path / "b.tsv").write_text("the cat\tdie Katze\nthe dog\tder Hund\n")
    both = str(tmp_path / "b.tsv")
    train = [str(tmp_path / "a.en"), str(tmp_path / "a.de.gz")]
    return {"train": train, "val": both, "test": [both], "vocabulary": 300, "bucket": 4}


def test_it_keeps_the_contract(files: dict[str, Any]) -> None:
    check_task("translation", **NUMBERS, label_smoothing=0.1)
    check_task("translation", **{**files, "val": files["train"], "test": files["train"]})


def test_the_stream_is_source_separator_target_and_end(make: Any, files: dict[str, Any]) -> None:
    task = make(**files)
    marks = task.text.vocabulary
    batch = task.batch(task.splits("test")[0], Draws(0, "test"), 0, 2)
    for row, (source, target) in enumerate([("the cat", "die Katze"), ("the dog", "der Hund")]):
        s, t = marks.encode([source, target])
        steps = len(s) + len(t) + 1
        assert batch.inputs["token"][row, :steps].tolist() == [*s, marks.separator, *t]
        assert batch.targets[row, len(s) : steps, 0].tolist() == [*t, marks.end]
        assert batch.scored[row].nonzero().flatten().tolist() == list(range(len(s), steps))
        if batch.valid is not None:
            assert batch.valid[row].sum() == steps


def test_an_epoch_asks_every_pair_once_and_the_next_in_another_order(
    make: Any, files: dict[str, Any]
) -> None:
    task, draws = make(**files), Draws(3, "train")
    split = task.splits("train")[0]
    epochs = []
    for epoch in range(2):
        batches = [task.batch(split, draws, epoch * 60 + start, 4) for start in range(0, 60, 4)]
        rows = [tuple(row.tolist()) for batch in batches for row in batch.inputs["token"]]
        epochs.append([[t for t in row if t != task.text.vocabulary.end] for row in rows])
        lengths = [{len(row) for row in epochs[-1][i : i + 4]} for i in range(0, 60, 4)]
        assert sum(max(found) - min(found) for found in lengths) < 60, "pairs of like length stand together"
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len({tuple(row) for row in epochs[0]}) == 60
    assert epochs[0] != epochs[1]


def test_samples_do_not_depend_on_what_was_asked_before(make: Any, files: dict[str, Any]) -> None:
    one, other = make(**files), make(**files)
    draws, split = Draws(1, "train"), one.splits("train")[0]
    for start in (500, 3, 250, 0):
        one.batch(split, draws, start, 5)
    late = [task.batch(split, draws, 117, 6).inputs["token"] for task in (one, other)]
    assert torch.equal(*late)


def test_smoothing_is_in_the_loss_alone(make: Any) -> None:
    plain, smooth = make(**NUMBERS), make(**NUMBERS, label_smoothing=0.2)
    batch = plain.batch(plain.splits("val")[0], Draws(0, "val"), 0, 3)
    logits = torch.randn(*batch.targets.shape, plain.spec.target.count)
    one, other = plain.score(logits, batch), smooth.score(logits, batch)
    count = batch.scored.sum()
    nats = torch.nn.functional.cross_entropy(
        logits[:, :, 0].transpose(1, 2), batch.targets[..., 0], reduction="none"
    )
    total = (nats * batch.scored).sum()
    assert one.loss.item() == pytest.approx(total.item() / 3, rel=1e-5)
    even = -(logits[:, :, 0].log_softmax(-1).mean(-1) * batch.scored).sum()
    assert other.loss.item() == pytest.approx((0.8 * total + 0.2 * even).item() / 3, rel=1e-5)
    for name, (found, of) in one.metrics.items():
        assert found.item() == pytest.approx(other.metrics[name][0].item(), rel=1e-5)
        assert of == count
    means = {name: float(found / of) for name, (found, of) in one.metrics.items()}
    expected = math.exp(total.item() / count.item())
    assert plain.derive(means)["perplexity_per_token"] == pytest.approx(expected, rel=1e-4)
    right = ((logits[:, :, 0].argmax(-1) == batch.targets[..., 0]) * batch.scored).sum()
    assert means["token_accuracy_percent"] == pytest.approx(100 * float(right / count))


class Parrot:
    """Knows some answers; notes how it was asked."""

    def __init__(self, task: Any, answers: dict[str, str]) -> None:
        self.task, self.answers, self.beams = task, answers, []

    def __call__(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[Continuation]:
        self.beams.append(options["beam"])
        marks = self.task.text.vocabulary
        assert all(prompt[-1] == marks.separator for prompt in prompts)
        said = [self.answers.get(marks.decode(prompt), "?") for prompt in prompts]
        return [Continuation(tokens, 0.0, True) for tokens in marks.encode(said)]


def test_translations_are_scored_and_shown(make: Any, files: dict[str, Any]) -> None:
    task = make(**files, beam=3)
    parrot = Parrot(task, {"the cat": "die Katze", "the dog": "die | Hündin"})
    found = task.examine(parrot, task.splits("test")[0], Draws(0, "test"))
    assert found.metrics["exact_match_percent"] == 50
    assert 0 < found.metrics["chrf_points"] < 100
    assert "bleu_points" not in found.metrics, "two words have no 4-grams"
    assert "the dog | die \\| Hündin | der Hund" in found.texts["translations"]
    assert "die Katze ✓" in found.texts["translations"]
    assert "version:" in task.facts()["sacrebleu"]["chrf"]
    task.examine(parrot, task.splits("val")[0], Draws(0, "val"))
    assert parrot.beams == [3, 1]


def test_bleu_is_that_of_sacrebleu(make: Any) -> None:
    import sacrebleu

    from mannlab.scoring import text_scores

    answers = ["a cat sat on the mat .", "the dog is here now"]
    references = ["the cat sat on the mat .", "The dog is here now"]
    metrics, signatures = text_scores(answers, references)
    assert metrics["bleu_points"] == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert metrics["chrf_points"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert metrics["exact_match_percent"] == 0
    assert "case:mixed" in signatures["bleu"]
    lower, signatures = text_scores(answers, references, lowercase=True)
    assert lower["bleu_points"] > metrics["bleu_points"]
    assert "case:lc" in signatures["bleu"]


def test_texts_are_translated_and_blank_lines_stay(make: Any, files: dict[str, Any]) -> None:
    task = make(**files, max_tokens=60)
    parrot = Parrot(task, {"the cat": "die Katze"})
    assert task.predict(parrot, [" the cat ", "", "日本"]) == ["die Katze", "", "?"]
    with pytest.raises(ConfigError, match=r"task\.max_tokens"):
        task.predict(parrot, ["x" * 100])


def test_characters_never_seen_in_training_are_warned_of_once(
    make: Any, files: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    task = make(**files)
    parrot = Parrot(task, {})
    caplog.clear()  # the first to use these files says that it learns their byte pairs
    task.predict(parrot, ["the big cat", "", "große Katze 7"])
    assert not caplog.messages
    task.predict(parrot, ["日本 the cat\u200b", "日"])
    task.predict(parrot, ["日本", "本京"])
    said = "characters never seen in training: "
    assert caplog.messages == [f"{said}日 本 U+200B", f"{said}京"]
    caplog.clear()
    task.predict(parrot, ["".join(map(chr, range(0x3041, 0x305F)))])
    assert caplog.messages[0].endswith("and 18 more"), "30 are new: 12 are named"


def test_the_alignment_is_drawn_for_memories_that_are_written(make: Any) -> None:
    task = make(**NUMBERS)
    batch = task.batch(task.splits("val")[0], Draws(0, "val"), 0, 1)
    steps = batch.targets.shape[1]
    weights = torch.rand(steps, 2, 9).softmax(-1)
    drawn = task.traced_pictures({"read weights": weights, "write weights": weights}, batch)
    labels = [text.get_text() for text in drawn["alignment"].axes[0].get_yticklabels()]
    assert labels[-1] == "■"
    assert len(labels) == int(batch.scored.sum())
    assert task.traced_pictures({}, batch) == {}


def test_bad_lines_are_named_or_counted(make: Any, tmp_path: Path) -> None:
    lines = [f"line {i}\tZeile {i}" for i in range(400)]
    lines[6] = "\tleer"
    lines[9] = "lang " * 90 + "\tlang"
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines))
    options = {"train": str(path), "vocabulary": 300, "max_tokens": 50}
    with pytest.raises(DataError, match=r"pairs\.tsv:7: an empty line"):
        make(**options)
    task = make(**options, on_error="skip")
    assert task.facts()["skipped"] == {"an empty line": 1, "a sentence that is too long": 1}
    assert sum(task.facts()[f"{split}_pairs"] for split in ("train", "val", "test")) == 398
    lines[6] = "da\tdort"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"pairs\.tsv:10: .*too long(.|\n)*task\.max_tokens is 50"):
        make(**options)


def test_lower_case(make: Any, files: dict[str, Any]) -> None:
    task = make(**files, lowercase=True)
    assert task.text.vocabulary.decode(task.text.targets["test"][0]) == "die katze"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"beam": 0}, r"task\.beam"),
        ({"label_smoothing": 1.0}, r"task\.label_smoothing"),
        ({"vocabulary": 100}, r"task\.vocabulary: 100"),
        ({"languages": ["en"]}, r"task\.languages"),
        ({"source": "files"}, r"task\.train: no file is named"),
        ({"source": "multi30k", "languages": ["en", "fr"]}, r"task\.languages.*multi30k"),
        ({"source": "multi30k", "root": "/nowhere"}, r"task\.root: there is no folder"),
        ({"source": "numbers", "languages": ["en", "dde"]}, "Did you mean 'de'"),
        ({"source": "numbers", "train": ["a.en", "a.de"]}, r"task\.train, .*not with task\.source=numbers"),
        ({"source": "tatoeba", "val": "a.tsv"}, r"task\.train, .*not with task\.source=tatoeba"),
        ({"train": ["a", "b", "c"]}, r"task\.train: 3 files"),
        ({"train": "no.tsv"}, r"task\.train: there is no file no\.tsv"),
    ],
)
def test_bad_options_name_the_key(make: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make(**options)


def test_data_that_is_not_there_says_where_to_get_it(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MANNLAB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"MANNLAB_OFFLINE(.|\n)*task\.source=numbers"):
        make(source="multi30k")
    with pytest.raises(DataError, match=r"manythings\.org"):
        make(source="tatoeba")


def test_tatoeba_in_both_directions(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deu.txt").write_text("".join(f"Go {i}.\tGeh {i}.\tCC-BY 2.0\n" for i in range(300)))
    monkeypatch.setenv("MANNLAB_DATA", str(tmp_path))
    there, back = (
        make(source="tatoeba", languages=pair, vocabulary=280) for pair in (["en", "de"], ["de", "en"])
    )
    decode = there.text.vocabulary.decode
    assert decode(there.text.sources["val"][0]).startswith("Go")
    assert back.text.vocabulary.decode(back.text.sources["val"][0]).startswith("Geh")
    assert there.label({"name": "translation", "source": "tatoeba"}) == "translation-tatoeba"


@pytest.mark.parametrize("given", [[], ["val"], ["test"], ["val", "test"]])
def test_only_what_is_not_given_leaves_the_training_text(make: Any, tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "all.tsv").write_text("".join(f"the cat {i}\tdie Katze {i}\n" for i in range(1000)))
    (tmp_path / "few.tsv").write_text("the dog\tder Hund\nthe cow\tdie Kuh\n")
    few = {split: str(tmp_path / "few.tsv") for split in given}
    facts = make(train=str(tmp_path / "all.tsv"), vocabulary=280, **few).facts()
    counts = {split: facts[f"{split}_pairs"] for split in ("train", "val", "test")}
    assert all(counts[split] == 2 for split in given)
    assert counts["train"] + sum(counts[split] for split in ("val", "test") if split not in given) == 1000
    assert all(5 < counts[split] < 50 for split in ("val", "test") if split not in given)


def test_another_text_has_another_fingerprint(make: Any, files: dict[str, Any]) -> None:
    before = make(**files).fingerprint
    assert make(**files).fingerprint == before
    Path(files["train"][0]).write_text("\n".join(f"a dog {i}" for i in range(60)))
    assert make(**files).fingerprint != before


@pytest.mark.skipif("MANNLAB_DATA" not in os.environ, reason="MANNLAB_DATA names no folder of real data")
@pytest.mark.slow
def test_multi30k_is_read_whole(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANNLAB_DATA", REAL)
    facts = make(source="multi30k", max_tokens=100).facts()
    assert [facts[f"{split}_pairs"] for split in ("train", "val", "test")] == [29_000, 1014, 1000]


@pytest.mark.parametrize("key", ["val_sequences", "test_sequences"])
def test_sets_of_no_sequences_are_refused(key):
    with pytest.raises(ConfigError, match=rf"task\.{key}: 0 is not allowed"):
        registry.build("task", "translation", **{key: 0})
