from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mannlab import registry
from mannlab.contracts import Task
from mannlab.errors import CheckpointError
from mannlab.training.checkpoints import (
    IDENTITY,
    AtomicCheckpointIO,
    WriteError,
    check_same,
    find_checkpoint,
    load_weights,
    read_checkpoint,
    replace_file,
    resolve,
    to_resume,
)

GOOD = {"state_dict": {}, "hyper_parameters": {}}


def put(path: Path, content: Any = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def test_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "run" / "checkpoints" / "last.ckpt")
    before = path.read_bytes()

    def full(content: Any, target: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match="No space left") as caught:
        AtomicCheckpointIO().save_checkpoint(GOOD, path)
    assert str(path.parent) in str(caught.value)
    assert "still holds" in caught.value.hint
    assert f"ckpt_path={tmp_path / 'run'}." in caught.value.hint
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_replace_file_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    replace_file(target, lambda path: path.write_text("one"))
    replace_file(target, lambda path: path.write_text("two"))
    assert target.read_text() == "two"
    assert os.listdir(target.parent) == ["b.txt"]


def test_a_file_that_cannot_be_written_says_what_it_was_of(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    def hint(target: Path, **of: Any) -> str:
        with pytest.raises(WriteError, match="No space left") as caught:
            replace_file(target, full, **of)
        return caught.value.hint

    alone = hint(tmp_path / "here" / "answers.txt")
    assert alone == "Nothing was saved there yet. Make room there, or choose another place."
    run = tmp_path / "run"
    first = hint(run / "checkpoints" / "last.ckpt", run=run)
    assert first.endswith(
        "The run was stopped. Make room or give another output folder, then start it again."
    )
    put(run / "checkpoints" / "last.ckpt")
    assert hint(run / "pictures" / "val.png", run=run).endswith(f"then continue with ckpt_path={run}.")


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (open, (str(self.target), "w"))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    loot = tmp_path / "loot"
    path = put(tmp_path / "evil.ckpt", {**GOOD, "extra": Payload(loot)})
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(path)
    assert not loot.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    loot, path = tmp_path / "loot", tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(Payload(loot)))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not loot.exists()


@pytest.mark.parametrize("kept", [0, 10, 200, 0.5, 0.9])
def test_a_truncated_checkpoint_says_so(tmp_path: Path, kept: float) -> None:
    path = put(tmp_path / "last.ckpt", {**GOOD, "state_dict": {"w": torch.randn(100)}})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        read_checkpoint(path)


def test_instead_of_a_damaged_checkpoint_only_one_that_exists_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="leave ckpt_path out") as caught:
        read_checkpoint(path)
    assert "best.ckpt" not in str(caught.value)
    put(tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"such as .*best\.ckpt"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, torch.ones(2)])
def test_something_else_is_not_a_checkpoint(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_checkpoint(put(tmp_path / "x.ckpt", content))


def test_a_missing_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="first validation"):
        find_checkpoint(tmp_path)


def test_find_prefers_what_is_asked_and_falls_back(tmp_path: Path) -> None:
    last = put(tmp_path / "checkpoints" / "last.ckpt")
    assert find_checkpoint(tmp_path) == last
    best = put(tmp_path / "checkpoints" / "best.ckpt")
    assert find_checkpoint(tmp_path) == best
    assert find_checkpoint(tmp_path, "last") == last
    assert find_checkpoint(best, "last") == best
    with pytest.raises(CheckpointError, match="best, last"):
        find_checkpoint(tmp_path, "first")


def test_last_is_the_newest_sibling(tmp_path: Path) -> None:
    old = put(tmp_path / "a" / "checkpoints" / "last.ckpt")
    new = put(tmp_path / "b" / "checkpoints" / "last.ckpt")
    own = put(tmp_path / "c" / "checkpoints" / "last.ckpt")
    os.utime(old, (1, 1))
    os.utime(new, (2, 2))
    assert resolve("last", own.parent.parent) == new
    assert resolve(str(tmp_path / "a"), tmp_path / "c") == old
    assert resolve(None, tmp_path / "c") is None
    with pytest.raises(CheckpointError, match="no earlier run"):
        resolve("last", tmp_path / "d" / "e")


def test_other_configurations_are_named_by_key_and_value() -> None:
    saved = {"memory": {"name": "dense", "read_heads": 1}, "task": {"name": "copy"}}
    assert not check_same(saved, {**saved, "optimizer": 1}, Path("x"), ("memory", "task"))
    wanted = {"memory": {"name": "dense", "read_heads": 2, "width": 2}, "task": {"name": "copy"}}
    with pytest.raises(CheckpointError) as caught:
        check_same(saved, wanted, Path("x"), ("memory", "task"))
    assert "memory.read_heads: 1 in the checkpoint, 2 here" in str(caught.value)
    assert "memory.width: 20 in the checkpoint, 2 here" in str(caught.value)
    assert "task" not in caught.value.what
    with pytest.raises(CheckpointError, match=r"memory.rows: 9 in the checkpoint, \(not set\) here"):
        check_same(
            {"memory": {"name": "dense", "rows": 9}}, {"memory": {"name": "dense"}}, Path("x"), ("memory",)
        )


def test_options_younger_than_the_checkpoint_had_their_defaults() -> None:
    saved = {"memory": {"name": "dense"}, "model": {}}
    check_same(
        saved,
        {"memory": {"name": "dense", "slots": 128}, "model": {"interface": "linear"}},
        Path("x"),
        IDENTITY,
    )
    with pytest.raises(CheckpointError, match=r"model\.interface: 'linear' in the checkpoint, 'direct' here"):
        check_same(saved, {**saved, "model": {"interface": "direct"}}, Path("x"), IDENTITY)
    # What nothing here has the name of has no defaults.
    check_same({"memory": {"name": "gone"}}, {"memory": {"name": "gone"}}, Path("x"), IDENTITY)


def test_a_run_may_go_on_with_another_curriculum() -> None:
    saved = {"task": {"name": "copy", "curriculum": {"threshold": 0.1, "start": 4}}}
    wanted = {"task": {"name": "copy", "curriculum": {"threshold": 0.2, "start": 4}}}
    changed = {"task.curriculum.threshold": ("0.1", "0.2")}
    assert check_same(saved, wanted, Path("x"), IDENTITY) == changed
    assert check_same(saved, {"task": {"name": "copy"}}, Path("x"), IDENTITY).keys() == {
        "task.curriculum",
        "task.curriculum.start",
        "task.curriculum.threshold",
    }


def test_a_run_may_go_on_with_another_number_of_slots() -> None:
    saved = {"memory": {"name": "dnc", "slots": 8, "width": 4}}
    wanted = {"memory": {"name": "dnc", "slots": 9, "width": 4}}
    assert check_same(saved, wanted, Path("x"), IDENTITY) == {"memory.slots": ("8", "9")}
    with pytest.raises(CheckpointError, match=r"memory\.width") as caught:
        check_same(saved, {"memory": {"name": "dnc", "slots": 9, "width": 5}}, Path("x"), IDENTITY)
    assert "slots" not in caught.value.what
    # A table's rows are learned.
    with pytest.raises(CheckpointError, match=r"memory\.slots: 16384 in the checkpoint, 100 here"):
        check_same(
            {"memory": {"name": "product_key", "slots": 16384}},
            {"memory": {"name": "product_key", "slots": 100}},
            Path("x"),
            IDENTITY,
        )


def test_no_weight_depends_on_how_much_a_memory_holds() -> None:
    for name in registry.names("memory"):
        memory = registry.get("memory", name)
        # Times are learned, one for each slot.
        besides = {"temporal": False} if name == "memory_network" else {}
        sizes = [
            {key: value.shape for key, value in memory(slots=slots, **besides).state_dict().items()}
            for slots in (16, 36)
            if "slots" in memory.resizable
        ]
        assert sizes[1:] == sizes[:1], name


def test_a_run_may_go_on_to_be_tested_otherwise() -> None:
    saved = {"task": {"name": "copy", "lengths": [10], "max_length": 20}}
    check_same(saved, {"task": {"name": "copy", "lengths": [30], "max_length": 20}}, Path("x"), IDENTITY)
    with pytest.raises(CheckpointError, match=r"task\.max_length") as caught:
        check_same(saved, {"task": {"name": "copy", "lengths": [30], "max_length": 10}}, Path("x"), IDENTITY)
    assert "lengths" not in caught.value.what


def test_what_is_only_tested_is_an_option_of_the_task() -> None:
    registry.load_builtins()
    for name in registry.names("task"):
        task = registry.get("task", name)
        assert issubclass(task, Task)
        assert task.tested <= registry.options(task).keys(), name


def test_weights_must_fit() -> None:
    checkpoint = {"state_dict": {f"model.{k}": v for k, v in nn.Linear(2, 3).state_dict().items()}}
    load_weights(nn.Linear(2, 3), checkpoint, Path("x"))
    with pytest.raises(CheckpointError) as caught:
        load_weights(nn.Linear(2, 4, bias=False), checkpoint, Path("x"))
    assert "weight: [3, 2] in the checkpoint, [4, 2] in this configuration" in str(caught.value)
    assert "bias: [3] in the checkpoint, missing in this configuration" in str(caught.value)


def test_options_are_named_rather_than_weights() -> None:
    weights = {f"model.{k}": v for k, v in nn.Linear(2, 3).state_dict().items()}
    saved = {"state_dict": weights, "hyper_parameters": {"memory": {"width": 3}}}
    with pytest.raises(CheckpointError) as caught:
        load_weights(nn.Linear(2, 4), saved, Path("x"), {"memory": {"width": 4}})
    assert "memory.width: 3 in the checkpoint, 4 here" in caught.value.what
    assert "bias" not in caught.value.what
    with pytest.raises(CheckpointError, match="bias"):
        load_weights(nn.Linear(2, 4), saved, Path("x"), {"memory": {"width": 3}})


def test_a_run_without_a_checkpoint_cannot_be_gone_on_with(tmp_path: Path) -> None:
    for name, said in (("run", "ckpt_path={}"), ("a=b", "'ckpt_path=\"{}\"'")):
        folder = tmp_path / name
        assert to_resume(folder) is None
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        assert to_resume(folder) == said.format(folder)
