"""What TensorBoard shows first: charts in an order, the configuration, and how to run it again."""

from __future__ import annotations

from typing import Any

import yaml
from lightning.pytorch.callbacks import Callback

from mannlab.contracts import Task
from mannlab.training.loggers import TensorBoard, show_text
from mannlab.training.summary import folded, repeat_command, versions

Charts = dict[str, dict[str, list[str]]]


class Dashboard(Callback):
    """Lay out the charts of the tab CUSTOM SCALARS, and write down the run's configuration and command."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.layout(charts(pl_module.task, pl_module.model))
        show_text(trainer.loggers, "run/command", described(self.config), trainer.global_step)
        kept = {key: value for key, value in self.config.items() if key != "overrides"}
        text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
        show_text(trainer.loggers, "run/configuration", f"```yaml\n{text}```", trainer.global_step)


def described(config: dict[str, Any]) -> str:
    """How to run it again, and with what versions it ran; Markdown."""
    command = repeat_command(config)
    how = (
        f"```bash\n{folded(command)}\n```"
        if command
        else "Started from Python: `mannlab.training.train(config, folder)`."
    )
    rows = "\n".join(f"| {name} | {version} |" for name, version in versions().items())
    return f"{how}\n\n| | version |\n| --- | --- |\n{rows}\n"


def charts(task: Task, model: Any) -> Charts:
    """Sections of charts, by title regular expressions of the curves that they show together.

    Learning comes first: training and validation of the watched metric, of the main one and of the loss.
    """
    main, *others = [split.stream for split in task.splits("val")]
    metrics = [*dict.fromkeys((task.objective.watched, task.objective.metric, "loss_nats"))]
    learning = {_title(name): [_only(f"train/{name}"), _only(f"{main}/{name}")] for name in metrics}
    if others:
        name = task.objective.watched
        learning[f"{_title(name)}: sizes beyond training"] = [_only(f"{stream}/{name}") for stream in others]
    sections: Charts = {"Learning": learning}
    if any(memory.read_size for memory, _ in model.named_memories()):
        sections["Memory"] = {
            "sharpness, %: largest weight of a head": [r"val_memory/.*_sharpness_percent"],
            "entropy, %: 100 looks everywhere": [r"val_memory/.*_entropy_percent"],
            "slots used, %": [r"val_memory/.*(slots_used|usage|[^_]used)_percent"],
            "gates and modes, %": [r"val_memory/.*(gate|mode|erase)_percent"],
        }
    sections["Gradients before clipping"] = {
        "all together": [_only("train_gradients/global_norm")],
        "by part": [r"train_gradients/(?!global)"],
    }
    sections["Speed"] = {
        "sequences a second": [_only("train_speed/sequences_per_second")],
        "steps a second": [_only("train_speed/steps_per_second")],
    }
    schedule = {"learning rate": [_only("train/learning_rate")]}
    if task.curriculum:
        schedule["curriculum: largest size"] = [_only("train/curriculum_level")]
    return sections | {"Schedule": schedule}


def _only(tag: str) -> str:
    return f"{tag}$"


def _title(metric: str) -> str:
    return metric.replace("_", " ")
