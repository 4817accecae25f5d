"""Pictures of what goes in, what comes out and what the memory's heads look at; texts that tasks made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback
from torch.nn.functional import one_hot

from mannlab.contracts import Batch, Bits, Split, StreamSpec, Token, Vector
from mannlab.plots.contents import draw_contents
from mannlab.plots.stream import draw_stream, touched
from mannlab.training.aside import aside
from mannlab.training.callbacks.averages import put_averages
from mannlab.training.checkpoints import replace_file
from mannlab.training.data import place
from mannlab.training.generalisation import TITLE, generalisation, largest_trained
from mannlab.training.loggers import TensorBoard, show_picture, show_text
from mannlab.training.points import chosen, inputs_said, labels_of
from mannlab.training.tables import divided

FOLDER, TEXTS = "pictures", "texts"
MOST_ROWS = 64


class Pictures(Callback):
    """Draw the first sample of each split at validations and at the test, for TensorBoard and as PNG files.

    After the test also its metrics against size, where there are test sets of several sizes.

    Args:
        every_n_validations: draw at each this many validations.
        min_seconds: but leave at least this much time between drawings in training.
    """

    def __init__(self, every_n_validations: int = 1, min_seconds: float = 60.0) -> None:
        self.every, self.min_seconds = max(1, every_n_validations), min_seconds
        self._validations = 0
        self._drawn = float("-inf")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self._validations % self.every or time.monotonic() - self._drawn < self.min_seconds:
            return
        self.draw(trainer, pl_module, "val")
        self._drawn = time.monotonic()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        put_averages(trainer, pl_module)
        if trainer.is_global_zero and self._validations:
            self.draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        self.draw(trainer, pl_module, "test")
        trained = largest_trained(pl_module.task, trainer.datamodule.curriculum.ceiling)
        figure = generalisation(pl_module.task, pl_module.results, trained)
        if figure is not None:
            self._keep(trainer, f"test/{TITLE}", figure)

    def draw(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Draw every split of a stage, and write down what its task has to say."""
        # One rank draws, and cannot run a model that wants all of them.
        alone = not divided(pl_module.model)
        for number, split in enumerate(pl_module.task.splits(stage) if alone else []):
            look = looked(pl_module, trainer.datamodule, split)
            for title, figure in figures(pl_module, look).items():
                self._keep(trainer, f"{split.stream}/{title}", figure)
            if number == 0:
                self._project(trainer, stage, points(pl_module, look))
                if look.contents and pl_module.model.memory.stateful:
                    self._keep(trainer, f"{split.stream}/memory content", content_figure(look))
        for memory, suffix in pl_module.model.named_memories():
            for title, figure in memory.pictures().items():
                self._keep(trainer, f"{stage}_memory/{title}{suffix}", figure)
        for name, text in pl_module.texts.items():
            if name.partition("/")[0].partition("_")[0] == stage:
                self._write(trainer, name, text)

    def _project(self, trainer: Any, stage: str, sets: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                for title, (rows, labels) in sets.items():
                    logger.embedding(f"{stage}_memory/{title}", rows, labels)

    def _write(self, trainer: Any, name: str, text: str) -> None:
        run = Path(trainer.default_root_dir)
        path = run / TEXTS / f"{name.replace('/', '_').replace(' ', '_')}.md"
        replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), run)
        show_text(trainer.loggers, name, text, trainer.global_step)

    def _keep(self, trainer: Any, name: str, figure: Any) -> None:
        run = Path(trainer.default_root_dir)
        path = run / FOLDER / f"{name.replace('/', '_').replace(' ', '_')}.png"
        replace_file(path, lambda temporary: figure.savefig(temporary, format="png"), run)
        show_picture(trainer.loggers, name, path, trainer.global_step)


class Look(NamedTuple):
    """What a model makes of a split's first sample.

    Attributes:
        batch: the sample.
        logits: ``[1, T, ...]``.
        weights: what its memory showed, ``[T, heads, N]`` by title.
        contents: what its memory held at the end, ``[rows, width]`` by title.
        own: figures that the task made.
    """

    batch: Batch
    logits: torch.Tensor
    weights: dict[str, torch.Tensor]
    contents: dict[str, torch.Tensor]
    own: dict[str, Any]


def looked(pl_module: Any, data: Any, split: Split) -> Look:
    """Run the model on a split's first sample; leaves it and the random state as they were."""
    trace: dict[str, list[torch.Tensor]] = {}
    with aside(pl_module):
        batch = place(data.first(split), pl_module.device, pl_module.dtype)
        logits, state = pl_module.model.run(batch.inputs, batch.valid, trace=trace)
        held = pl_module.model.memory.contents(state.memory)
        own = _own_figures(pl_module, data, split, batch, logits)
    weights = {title: torch.stack(steps, 1)[0].float().cpu() for title, steps in trace.items()}
    contents = {title: rows[0].detach().float().cpu() for title, rows in held.items()}
    own |= pl_module.task.traced_pictures(weights, batch)
    return Look(batch, logits, weights, contents, own)


def figures(pl_module: Any, look: Look) -> dict[str, Any]:
    """Figures of what was seen, by title."""
    own, segment = dict(look.own), pl_module.model.controller.segment
    if own:
        own |= {"memory": draw_stream({}, look.weights, segment)} if look.weights else {}
    else:
        rows = stream_rows(pl_module.task.spec, look.batch, look.logits)
        own |= {"stream": draw_stream(rows, look.weights, segment)} if rows or look.weights else {}
    return own


def content_figure(look: Look) -> Any:
    """What the memory held at the end, the rows that heads touched if they are many."""
    many = max(len(rows) for rows in look.contents.values())
    same = {title: weight for title, weight in look.weights.items() if weight.shape[-1] == many}
    return draw_contents(look.contents, *touched(same) if same else (0, many))


def points(pl_module: Any, look: Look) -> dict[str, tuple[torch.Tensor, dict[str, list[str]]]]:
    """Rows of the memories as points with labels, by title (see ``mannlab.training.points``)."""
    said = inputs_said(pl_module.task.spec, look.batch)
    found = {}
    for memory, suffix in pl_module.model.named_memories():
        held = look.contents
        if memory is not pl_module.model.memory:
            held = {
                title: rows[0].float().cpu() for title, rows in memory.contents(memory.init_state(1)).items()
            }
        for title, rows in held.items():
            which = chosen(len(rows), look.weights)
            labels = labels_of(which, len(rows), look.weights, said, memory.row_labels(title))
            found[f"{title}{suffix}"] = (rows[which], labels)
    return found


def _own_figures(
    pl_module: Any, data: Any, split: Split, batch: Batch, logits: torch.Tensor
) -> dict[str, Any]:
    """What the task itself draws, of as many samples as it wants."""
    if pl_module.task.picture_samples > 1:
        # Without a trace, which takes room in proportion to the memory.
        more = data.first(split, pl_module.task.picture_samples)
        batch = place(more, pl_module.device, pl_module.dtype)
        logits = pl_module(batch)
    own: dict[str, Any] = pl_module.task.pictures(logits, batch)
    return own


def stream_rows(spec: StreamSpec, batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """The first sequence of a batch, as rows of squares: what came in, what was asked, what was answered."""
    rows = {}
    for key, channel in spec.inputs.items():
        title = "input" if len(spec.inputs) == 1 else f"input\n{key}"
        if isinstance(channel, Vector):
            rows[title] = batch.inputs[key][0].float().cpu()
        elif isinstance(channel, Token) and channel.vocabulary <= MOST_ROWS:
            rows[title] = one_hot(batch.inputs[key][0].cpu(), channel.vocabulary).float()
    scored = batch.scored[0].bool().cpu()
    if isinstance(spec.target, Bits):
        rows["target"] = blank(batch.targets[0].float().cpu(), scored)
        rows["output"] = blank(torch.sigmoid(logits[0].float()).cpu(), scored)
    elif spec.target.count * spec.target.groups <= MOST_ROWS:
        rows["target"] = blank(one_hot(batch.targets[0].cpu(), spec.target.count).flatten(1).float(), scored)
        rows["output"] = blank(torch.softmax(logits[0].float(), -1).flatten(1).cpu(), scored)
    return rows


def blank(row: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """``row[T, size]`` with NaN, drawn as empty, where nothing is asked."""
    return torch.where(scored.unsqueeze(-1), row, torch.nan)
