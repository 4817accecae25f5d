"""Callbacks within whole, tiny runs."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mannlab.errors import MannlabError
from mannlab.training import callbacks
from mannlab.training.callbacks.stop import keyboard, undisturbed
from mannlab.training.checkpoints import read_checkpoint
from mannlab.training.run import train

pytestmark = pytest.mark.usefixtures("silent")


class Probe(Callback):
    """Calls ``action(trainer, module)`` after a batch."""

    action: Any = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        type(self).action(trainer, pl_module)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``probe(function)``: a callback node that calls it after each batch."""
    monkeypatch.setattr(callbacks, "Probe", Probe, raising=False)

    def make(function: Any) -> dict[str, Any]:
        monkeypatch.setattr(Probe, "action", staticmethod(function))
        return {"_target_": "mannlab.training.callbacks.Probe"}

    return make


def step_of(run: Path, kind: str) -> int:
    return int(read_checkpoint(run / "checkpoints" / f"{kind}.ckpt")["global_step"])


# ---------------------------------------------------------------------- checkpoints


def test_best_follows_the_main_metric(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mannlab.training.module import MannModule

    values = iter([5.0, 2.0, math.nan, 3.0])
    report = MannModule._report

    def scripted(self: MannModule, *arguments: Any) -> None:
        report(self, *arguments)
        self.results[self.objective] = next(values)

    monkeypatch.setattr(MannModule, "_report", scripted)
    train(settings({"trainer.val_check_interval": 2, "trainer.max_steps": 8}), tmp_path / "run")
    assert step_of(tmp_path / "run", "best") == 4
    assert step_of(tmp_path / "run", "last") == 8


def test_last_can_be_written_between_validations(tmp_path: Path, settings: Any, probe: Any) -> None:
    seen = []

    def look(trainer: Any, module: Any) -> None:
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        seen.append(step_of(tmp_path / "run", "last") if path.exists() else 0)

    changes = {
        "callbacks.checkpoints.every_n_steps": 2,
        "trainer.val_check_interval": 50,
        "callbacks.z": probe(look),
    }
    train(settings(changes), tmp_path / "run")
    assert seen == [0, 0, 2, 2, 4, 4]


# ---------------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_saves(
    tmp_path: Path, settings: Any, probe: Any, number: int
) -> None:
    def send(trainer: Any, module: Any) -> None:
        if trainer.global_step == 4:
            os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    config = settings({"trainer.max_steps": 50, "test": True, "trainer.val_check_interval": 100})
    config["callbacks"] = {"aa": probe(send), **config["callbacks"]}
    summary = train(config, tmp_path / "run")
    assert summary["status"] == "interrupted"
    assert summary["steps"] in (4, 5)
    assert step_of(tmp_path / "run", "last") == summary["steps"]
    assert summary["metrics"] == {}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_handlers_come_back_after_a_run_and_after_a_failure(
    tmp_path: Path, settings: Any, probe: Any
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    train(settings({"trainer.max_steps": 2}), tmp_path / "a")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before

    def fail(trainer: Any, module: Any) -> None:
        raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        train(settings({"callbacks.z": probe(fail)}), tmp_path / "b")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


TWICE = """
import json, os, signal, sys
from pathlib import Path
from lightning.pytorch.callbacks import Callback
from mannlab.training.run import train

class Twice(Callback):
    def on_train_batch_start(self, trainer, *rest):
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            sys.exit("the second signal was ignored")

sys.modules["twice"] = sys.modules["__main__"]
config = json.loads(Path(sys.argv[1]).read_text())
config["callbacks"]["twice"] = {"_target_": "twice.Twice"}
train(config, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_loses_nothing(tmp_path: Path, settings: Any, root: Path) -> None:
    changes = {"trainer.max_steps": 50, "callbacks.checkpoints.every_n_steps": 2}
    (tmp_path / "script.py").write_text(TWICE)
    (tmp_path / "config.json").write_text(json.dumps(settings(changes)))
    done = subprocess.run(
        [sys.executable, "script.py", "config.json", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode != 0
    assert "ignored" not in done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("interrupted", 5)
    assert step_of(tmp_path / "run", "last") == 4


def test_what_must_not_be_disturbed_is_not() -> None:
    done = []

    def work() -> None:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("finished")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["finished"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_comes_through_an_exit_that_it_caused() -> None:
    def leave(code: int, error: type[BaseException] | None) -> None:
        with keyboard():
            try:
                if error is not None:
                    raise error
            finally:
                sys.exit(code)

    with pytest.raises(KeyboardInterrupt):
        leave(1, KeyboardInterrupt)
    with pytest.raises(SystemExit):
        leave(2, None)


@pytest.mark.parametrize(("patience", "steps", "first"), [(1, 2, 8), (3, 6, 8)])
def test_stops_when_solved(
    tmp_path: Path, settings: Any, patience: int, steps: int, first: int, monkeypatch: Any
) -> None:
    solve(monkeypatch)
    changes = {
        "callbacks.stop_when_solved.patience": patience,
        "trainer.val_check_interval": 2,
        "trainer.max_steps": 20,
    }
    summary = train(settings(changes), tmp_path / "run")
    assert (summary["status"], summary["steps"]) == ("solved", steps)
    assert summary["sequences_until_solved"] == first
    assert step_of(tmp_path / "run", "last") == steps


def test_a_solved_run_trains_on_elsewhere_and_is_only_tested_again_in_its_own_folder(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    solve(monkeypatch)
    first = tmp_path / "first"
    assert train(settings(), first)["status"] == "solved"
    more = settings({"ckpt_path": str(first), "trainer.max_steps": 12})
    with caplog.at_level("INFO"):
        longer = train(more, tmp_path / "longer")
    assert (longer["status"], longer["steps"], longer["sequences_until_solved"]) == ("completed", 12, 12)
    assert "Solved already, after 12 sequences" in caplog.text
    again = train(more, first)
    assert (again["status"], again["steps"]) == ("solved", 3)


def test_can_only_note_that_it_is_solved(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve(monkeypatch)
    summary = train(settings({"callbacks.stop_when_solved.enabled": False}), tmp_path / "run")
    assert (summary["status"], summary["steps"], summary["sequences_until_solved"]) == ("completed", 6, 12)


def solve(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from mannlab.registry import get

    copy = get("task", "copy")
    monkeypatch.setattr(copy, "objective", replace(copy.objective, solved=1e9))


def test_unsolved_says_so(tmp_path: Path, settings: Any) -> None:
    assert train(settings(), tmp_path / "run")["sequences_until_solved"] is None


# ---------------------------------------------------------------------- guard


def test_a_broken_parameter_is_named(tmp_path: Path, settings: Any, probe: Any) -> None:
    def break_it(trainer: Any, module: Any) -> None:
        if trainer.global_step == 4:
            with torch.no_grad():
                module.model.interface.weight[0, 0] = math.nan

    with pytest.raises(MannlabError) as caught:
        train(settings({"callbacks.z": probe(break_it)}), tmp_path / "run")
    assert "step 5" in str(caught.value)
    assert "parameter 'interface.weight'" in str(caught.value)
    assert "Samples 16 to 19 of split 'train', seed 3" in str(caught.value)
    assert f"continue with ckpt_path={tmp_path / 'run'}: the last checkpoint" in caught.value.hint
    assert step_of(tmp_path / "run", "last") == 3
    assert "interface.weight" in json.loads((tmp_path / "run" / "summary.json").read_text())["error"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_input_is_named(tmp_path: Path, settings: Any, monkeypatch: Any, value: float) -> None:
    from mannlab.registry import get

    copy = get("task", "copy")
    plain = copy.batch

    def broken(self: Any, split: Any, draws: Any, start: int, count: int) -> Any:
        batch = plain(self, split, draws, start, count)
        if split.name == "train" and start == 8:
            batch.inputs["x"][1, 0, 0] = value
        return batch

    monkeypatch.setattr(copy, "batch", broken)
    word = "NaN" if math.isnan(value) else "infinity"
    with pytest.raises(MannlabError, match=f"input channel 'x' holds {word}") as caught:
        train(settings({"trainer.val_check_interval": 100}), tmp_path / "run")
    assert "amples 8 to 11" in str(caught.value)


def test_the_first_module_and_time_step_are_named(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mannlab.memory.dense import DenseMemory

    plain, calls = DenseMemory.forward, []

    def broken(self: Any, interface: Any, state: Any) -> Any:
        reads, state = plain(self, interface, state)
        calls.append(1)
        return (reads * math.nan if poisoned(len(calls)) else reads), state

    steps: list[int] = []

    def poisoned(call: int) -> bool:
        # Every sequence's third step, however often the sequence is run.
        return bool(steps) and (call - steps[0]) % length[0] == 2

    length = [0]
    monkeypatch.setattr(DenseMemory, "forward", broken)
    from mannlab.training.module import MannModule

    step = MannModule.training_step

    def counted(self: Any, batch: Any, index: int) -> Any:
        length[0] = batch.targets.shape[1]
        steps[:] = [len(calls) + 1]
        return step(self, batch, index)

    monkeypatch.setattr(MannModule, "training_step", counted)
    with pytest.raises(MannlabError, match="'memory' gives NaN at time step 2"):
        train(settings({"trainer.max_steps": 1, "model.backend": "eager"}), tmp_path / "run")


def test_broken_weights_never_replace_a_checkpoint(tmp_path: Path, settings: Any, probe: Any) -> None:
    def break_it(trainer: Any, module: Any) -> None:
        if trainer.global_step == 6:
            with torch.no_grad():
                module.model.interface.weight[0, 0] = math.nan

    with pytest.raises(MannlabError, match=r"interface\.weight") as caught:
        train(settings({"callbacks.z": probe(break_it)}), tmp_path / "run")
    assert f"continue with ckpt_path={tmp_path / 'run'}: the last checkpoint" in caught.value.hint
    assert step_of(tmp_path / "run", "last") == 3


@pytest.mark.parametrize("step", [1, 3])
def test_what_breaks_before_a_checkpoint_names_none(
    tmp_path: Path, settings: Any, probe: Any, step: int
) -> None:
    """Found by the loss of step 2, or as step 3 is saved; the folder holds another run's."""

    def break_it(trainer: Any, module: Any) -> None:
        if trainer.global_step == step:
            with torch.no_grad():
                module.model.interface.weight[0, 0] = math.nan

    train(settings(), tmp_path / "run")
    with pytest.raises(MannlabError, match="not finite") as caught:
        train(settings({"callbacks.z": probe(break_it)}), tmp_path / "run")
    assert "optimizer.lr" in caught.value.hint
    assert "checkpoint" not in caught.value.hint
    assert "ckpt_path" not in caught.value.hint


# ---------------------------------------------------------------------- progress


def test_a_log_file_gets_one_line_a_validation(tmp_path: Path, settings: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="mannlab.progress"):
        train(settings(), tmp_path / "run")
    lines = [record.getMessage() for record in caplog.records if record.name == "mannlab.progress"]
    assert len(lines) == 2
    assert lines[1].startswith("step 6/6  24 sequences  loss ")
    assert "bit_errors_per_sequence" in lines[1]


def test_a_terminal_gets_a_live_line(tmp_path: Path, settings: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    train(settings(), tmp_path / "run")
    text = capsys.readouterr().out
    assert "6/6" in text
    assert "bit_errors_per_sequence" in text
    assert "24 seq" in text


def test_time_left_is_no_more_than_max_time(
    tmp_path: Path, settings: Any, monkeypatch: Any, caplog: Any, capsys: Any
) -> None:
    changes = {"trainer.max_time": "00:00:00:59", "trainer.max_steps": 6}
    slow = {**changes, "trainer.max_steps": 10**9, "trainer.max_time": 1}
    with caplog.at_level(logging.INFO, logger="mannlab.progress"):
        summary = train(settings(slow), tmp_path / "slow")
    lines = [record.getMessage() for record in caplog.records if record.name == "mannlab.progress"]
    assert lines
    assert all(line.endswith("  0:00:00 left") for line in lines)
    assert (summary["status"], summary["stopped_by"]) == ("completed", "trainer.max_time")
    assert train(settings(changes), tmp_path / "fast")["stopped_by"] == "trainer.max_steps"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    train(settings({"trainer.max_time": 2, "trainer.max_steps": 10**9}), tmp_path / "live")
    assert "0:00:01" in capsys.readouterr().out


# ---------------------------------------------------------------------- pictures and TensorBoard


def pictured(settings: Any, **changes: Any) -> Any:
    node = {"_target_": "mannlab.training.callbacks.Pictures", "min_seconds": 0}
    return settings({"callbacks.pictures": node, **changes})


def test_pictures_are_drawn_and_change_nothing(tmp_path: Path, settings: Any) -> None:
    train(settings(), tmp_path / "plain")
    train(pictured(settings, test=True), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert names == {
        *(f"{split}_stream.png" for split in ("val", "val_length_5", "test", "test_length_5")),
        *(f"{split}_memory_content.png" for split in ("val", "test")),
    }
    for path in (tmp_path / "run" / "pictures").iterdir():
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width > 300
        assert height > 200
    plain, drawn = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("plain", "run")
    )
    assert all(torch.equal(plain["state_dict"][key], drawn["state_dict"][key]) for key in plain["state_dict"])
    assert torch.equal(plain["random"][0]["cpu"], drawn["random"][0]["cpu"])


def test_several_test_sizes_are_drawn_as_one_picture(tmp_path: Path, settings: Any) -> None:
    train(pictured(settings, test=True, **{"task.lengths": [4, 5]}), tmp_path / "run")
    assert (tmp_path / "run" / "pictures" / "test_generalisation.png").is_file()


def test_a_task_draws_as_many_samples_as_it_wants(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    from mannlab.tasks.copy import Copy

    seen = []

    def own(self: Copy, logits: torch.Tensor, batch: Any) -> dict[str, Any]:
        seen.append((len(logits), len(batch)))
        return {"own": Figure(figsize=(4, 3))}

    monkeypatch.setattr(Copy, "pictures", own)
    monkeypatch.setattr(Copy, "picture_samples", 5)
    train(pictured(settings), tmp_path / "run")
    assert set(seen) == {(5, 5), (1, 1)}, "the longer sequences are one in all"
    names = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert {"val_own.png", "val_memory.png"} <= names


def test_without_memory_there_are_pictures_without_weights(tmp_path: Path, settings: Any) -> None:
    config = pictured(settings)
    config["memory"] = {"name": "none"}
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "pictures" / "val_stream.png").is_file()


def test_tensorboard_gets_curves_options_and_pictures_in_one_file(tmp_path: Path, settings: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = {"tb": {"_target_": "mannlab.training.loggers.TensorBoard"}}
    summary = train(pictured(settings, logger=logger, test=True), tmp_path / "run")
    files = list((tmp_path / "run").rglob("events*"))
    assert len(files) == 1
    assert files[0].parent == tmp_path / "run"
    assert not (tmp_path / "run" / "hparams.yaml").exists()
    events = EventAccumulator(str(files[0]))
    events.Reload()
    tags = events.Tags()
    assert {
        "train/loss_nats",
        "train/sequences",
        "val/bit_errors_per_sequence",
        "train/learning_rate",
    } <= set(tags["scalars"])
    assert "epoch" not in tags["scalars"]
    assert [event.step for event in events.Scalars("train/loss_nats")] == [2, 4, 6]
    assert [event.value for event in events.Scalars("train/sequences")] == [8, 16, 24]
    assert [event.step for event in events.Scalars("val/bit_errors_per_sequence")] == [3, 6]
    assert "val/stream" in tags["images"]
    final = events.Scalars("test/cost_bits_per_sequence")
    assert final[-1].value == pytest.approx(summary["metrics"]["test/cost_bits_per_sequence"])
    assert any("hparams" in name for name in events.summary_metadata)


def test_csv_logger_writes_a_table(tmp_path: Path, settings: Any) -> None:
    train(settings({"logger": {"csv": {"_target_": "mannlab.training.loggers.Table"}}}), tmp_path / "run")
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert "train/loss_nats" in header
    assert len(rows) >= 3


# ---------------------------------------------------------------------- memory health and the dashboard


def test_health_changes_nothing_and_runs_at_validations_alone(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mannlab.training.callbacks import health

    calls, measured = [], health.measured

    def counted(pl_module: Any, batch: Any) -> dict[str, float]:
        calls.append((pl_module.global_step, len(batch)))
        return measured(pl_module, batch)

    monkeypatch.setattr(health, "measured", counted)
    plain = train(settings({"callbacks.memory_health": None}), tmp_path / "plain")
    summary = train(settings(), tmp_path / "run")
    assert calls == [(3, 7), (6, 7)]
    found = {name for name in summary["metrics"] if name.startswith("val_memory/")}
    assert {"val_memory/read_entropy_percent", "val_memory/write_sharpness_percent"} <= found
    assert not [name for name in plain["metrics"] if name.startswith("val_memory/")]
    weights = [
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("plain", "run")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_long_sequences_are_looked_at_in_part() -> None:
    from mannlab.contracts import Batch
    from mannlab.training.callbacks.health import shortened

    batch = Batch({"x": torch.zeros(2, 9, 3)}, torch.zeros(2, 9, 1), torch.ones(2, 9), torch.ones(2, 9))
    short = shortened(batch, 4)
    assert [t.shape[1] for t in (short.inputs["x"], short.targets, short.scored, short.valid)] == [4] * 4  # type: ignore[union-attr]
    assert shortened(batch, 9) is batch


def test_charts_fit_the_task_and_the_model(settings: Any) -> None:
    from mannlab.model import assemble
    from mannlab.training.callbacks.dashboard import charts

    model, task = assemble(settings())
    made = charts(task, model)
    assert next(iter(made)) == "Learning"
    assert made["Learning"]["loss nats"] == ["train/loss_nats$", "val/loss_nats$"]
    assert "curriculum: largest size" not in made["Schedule"]
    model, task = assemble(settings({"memory": {"name": "none"}, "task.curriculum": True}))
    made = charts(task, model)
    assert "Memory" not in made
    assert "curriculum: largest size" in made["Schedule"]


def test_the_table_of_curves_has_gradients_and_speed(tmp_path: Path, settings: Any) -> None:
    train(settings({"logger": {"csv": {"_target_": "mannlab.training.loggers.Table"}}}), tmp_path / "run")
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_gradients/global_norm", "train_speed/steps_per_second"} <= set(header)
