"""From arguments to the training room."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import mannlab.training.run
from mannlab.__main__ import main
from mannlab.cli import train
from mannlab.errors import ConfigError
from tests.cli.conftest import Room


def test_a_run_gets_a_plain_resolved_configuration(room: Room) -> None:
    assert main(["task.max_length=5", "scheduler=cosine", "trainer.max_steps=9"]) == 0
    assert room.config["task"]["max_length"] == 5
    assert type(room.config["task"]["lengths"]) is list
    assert room.config["scheduler"]["T_max"] == 9
    assert room.config["overrides"] == ["task.max_length=5", "scheduler=cosine", "trainer.max_steps=9"]


def test_the_run_folder_is_named_and_filled(room: Room, tmp_path: Path) -> None:
    assert main(["train", "memory=none"]) == 0
    parts = room.folder.relative_to(tmp_path).parts
    assert parts[:3] == ("outputs", "copy", "lstm-none")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{3}", parts[3])
    kept = yaml.safe_load((room.folder / "config.yaml").read_text())
    assert kept["memory"] == {"name": "none"}
    assert "overrides" not in kept
    assert (room.folder / ".hydra" / "overrides.yaml").read_text() == "- memory=none\n"


def test_two_runs_of_one_second_have_two_folders(room: Room) -> None:
    assert main([]) == 0
    first = room.folder
    assert main([]) == 0
    assert room.folder != first


def test_recipes_follow_the_task_and_give_way_to_the_command_line(room: Room, root: Path) -> None:
    recipe = yaml.safe_load((root / "conf" / "recipe" / "associative_recall.yaml").read_text())
    assert main(["task=associative_recall"]) == 0
    assert room.config["trainer"]["max_steps"] == recipe["trainer"]["max_steps"]
    assert main(["task=associative_recall", "trainer.max_steps=3"]) == 0
    assert room.config["trainer"]["max_steps"] == 3


def test_recipes_follow_the_task_of_an_experiment_and_give_way_to_it(room: Room, tmp_path: Path) -> None:
    for name in ("recipe", "experiment"):
        (tmp_path / "more" / name).mkdir(parents=True)
    override = "# @package _global_\ndefaults:\n  - override /task: associative_recall\nbatch_size: 3\n"
    (tmp_path / "more" / "experiment" / "mine.yaml").write_text(override)
    assert main(["--config-dir", "more", "experiment=mine"]) == 0
    recall = room.config["trainer"]["max_steps"]
    assert main(["task=associative_recall"]) == 0
    assert room.config["trainer"]["max_steps"] == recall
    assert main(["--config-dir", "more", "experiment=mine"]) == 0
    assert room.config["batch_size"] == 3


def test_a_recipe_can_be_left_out(room: Room, root: Path) -> None:
    fallback = yaml.safe_load((root / "conf" / "trainer" / "default.yaml").read_text())
    assert main(["task=associative_recall", "recipe=none"]) == 0
    assert room.config["trainer"]["max_steps"] == fallback["max_steps"]


def test_flags_may_stand_anywhere() -> None:
    assert train.flags_first(["task=copy", "-m", "seed=1,2"]) == ["-m", "task=copy", "seed=1,2"]
    assert train.flags_first(["a=1", "--cfg", "job", "b=2"]) == ["--cfg", "job", "a=1", "b=2"]
    assert train.flags_first(["--info", "a=1"]) == ["--info=all", "a=1"]
    with pytest.raises(ConfigError, match="--lr"):
        train.flags_first(["--lr", "3"])
    with pytest.raises(ConfigError, match="value is missing"):
        train.flags_first(["--cfg"])


def test_interrupted_runs_say_so_in_the_exit_code(room: Room) -> None:
    room.status = "interrupted"
    assert main([]) == 130
    room.error = KeyboardInterrupt()
    assert main([]) == 130


def test_a_failing_run_leaves_why(room: Room, capfd: pytest.CaptureFixture[str]) -> None:
    room.error = RuntimeError("the roof fell down")
    assert main([]) == 1
    said = capfd.readouterr().err
    assert "RuntimeError: the roof fell down" in said
    assert "HYDRA_FULL_ERROR=1" in said
    assert "Traceback" not in said
    assert "Error executing job" not in said
    summary = json.loads((room.folder / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "Traceback" in (room.folder / "train.log").read_text()


def test_the_whole_trace_is_there_for_the_asking(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    room.error = RuntimeError("the roof fell down")
    with pytest.raises(RuntimeError, match="roof"):
        main([])
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_jobs_see_the_users_environment(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(room, "train", lambda *_: None)
    monkeypatch.setattr(
        "mannlab.training.run.train",
        lambda config, folder: seen.append(os.environ.get("HYDRA_FULL_ERROR")) or {"status": "completed"},
    )
    assert main([]) == 0
    assert seen == [None]


def test_nothing_is_left_behind(room: Room) -> None:
    handlers, arguments, level = list(logging.getLogger().handlers), list(sys.argv), logging.getLogger().level
    assert main([]) == 0
    assert logging.getLogger().handlers == handlers
    assert sys.argv == arguments
    assert logging.getLogger().level == level


def test_further_processes_do_not_write_the_configuration(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main([]) == 0
    assert not (room.folder / "config.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["memory=dens"], ["no memory 'dens'", "Did you mean 'dense'?"]),
        (["memory.slotz=3"], ["memory.slotz", "Did you mean 'slots'?"]),
        (["memroy=dense"], ["memroy", "Did you mean 'memory'?"]),
        (["trainer.max_stepz=3"], ["trainer.max_stepz", "Did you mean 'max_steps'?", "overfit_batches"]),
        (["+trainer.max_stepz=3"], ["trainer.max_stepz", "Did you mean 'max_steps'?"]),
        (["trainer.over_fit_batches=3"], ["Did you mean 'overfit_batches'?"]),
        (["optimizer.lrr=3"], ["Did you mean 'lr'?", "+optimizer.lrr="]),
        (["task=copy=["], ["'task=copy=[' cannot be read", "key=value"]),
        (["trian"], ["'trian'", "Did you mean 'train'?"]),
        (["--lr", "3"], ["'--lr'", "key=value"]),
        (["seed=1,2"], ["names several values", "-m", "seed=[1,2]"]),
        (["experiment=nothing"], ["no experiment 'nothing'", "ntm_copy"]),
        (["recipe=cop"], ["no recipe 'cop'", "Did you mean 'copy'?"]),
        (["plugins=[not_a_module_of_anybody]"], ["plugins", "not_a_module_of_anybody"]),
        (["seed=${nothing}"], ["seed", "nothing"]),
        (["memory.slots=???"], ["memory.slots", "missing"]),
        (["--config-dir", "nowhere"], ["nowhere"]),
        (["-m", "seed=1,2", "--cfg", "job"], ["-m and --cfg do not go together", "leave out one"]),
        (["--multirun", "--info=all"], ["--multirun and --info=all do not go together"]),
    ],
)
def test_wrong_arguments_are_explained(
    refused: Callable[..., str], arguments: list[str], expected: list[str]
) -> None:
    said = refused(*arguments)
    for words in expected:
        assert words in said


def test_a_folder_that_cannot_be_made_is_explained(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    said = refused("outputs=taken")
    assert "taken" in said
    assert "outputs=<folder>" in said


def test_a_full_disk_is_explained(room: Room, refused: Callable[..., str]) -> None:
    room.error = OSError(28, "No space left on device")
    assert "disk is full" in refused()


def test_a_malformed_yaml_is_explained(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine" / "memory").mkdir(parents=True)
    (tmp_path / "mine" / "memory" / "broken.yaml").write_text("name: [dense\nslots: 3: 4\n")
    said = refused("--config-dir", "mine", "memory=broken")
    assert "broken.yaml" in said


def test_a_named_plugin_is_composed_from_its_signature(
    room: Room, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "plugin_example"))
    assert main(["plugins=[mannlab_ring]", "memory=ring", "task=reverse", "memory.slots=4"]) == 0
    assert room.config["memory"] == {"name": "ring", "slots": 4, "width": 16}
    assert room.folder.parts[-3:-1] == ("reverse", "lstm-ring")


def test_a_plugin_of_an_experiment_is_loaded(room: Room, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "plugin_example"))
    folder = Path("mine")
    for kind, text in {"memory": "name: ring\nslots: 3\n", "experiment": EXPERIMENT}.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / "ours.yaml").write_text(text)
    assert main(["--config-dir", "mine", "experiment=ours"]) == 0
    assert room.config["memory"] == {"name": "ring", "slots": 3}


EXPERIMENT = "# @package _global_\ndefaults:\n  - override /memory: ours\nplugins: [mannlab_ring]\n"


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    import mannlab

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mannlab {mannlab.__version__}\n"


def test_a_refused_run_leaves_no_folder(room: Room, refused: Callable[..., str], tmp_path: Path) -> None:
    room.error = ConfigError("memory.slots: too many.")
    assert "too many" in refused("memory=none")
    assert list((tmp_path / "outputs").iterdir()) == []
    assert "is missing" not in refused("memory=none", "outputs=${nothing}")


def test_a_refused_run_leaves_what_was_there(room: Room, refused: Callable[..., str], tmp_path: Path) -> None:
    assert main([]) == 0
    kept = room.folder
    (kept / "checkpoints").mkdir()
    room.error = ConfigError("seed: no.")
    refused()
    assert list(kept.parent.iterdir()) == [kept]
    before = (kept / "config.yaml").read_text()
    refused(f"hydra.run.dir={kept}", "memory=none")
    assert (kept / "checkpoints").is_dir()
    assert (kept / "config.yaml").read_text() == before


def test_a_run_that_had_begun_keeps_its_folder(room: Room, refused: Callable[..., str]) -> None:
    def train(config: object, run_dir: Path, also: object = ()) -> None:
        (run_dir / "summary.json").write_text('{"status": "failed", "steps": 7}')
        room.folder = run_dir
        raise ConfigError("the data: they are gone.")

    mannlab.training.run.train = train  # type: ignore[assignment]
    assert "they are gone" in refused()
    assert (room.folder / "train.log").exists()


def test_devices_do_not_go_with_hydras_own_launchers(room: Room, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "hydra/launcher=basic", "seed=1", "trainer.devices=2"]) == 1
    assert "share a process" in capfd.readouterr().err
    assert main(["-m", "hydra/launcher=basic", "seed=1"]) == 0
