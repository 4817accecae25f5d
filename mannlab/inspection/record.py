"""Running one sample through a trained model, and keeping what there is to show of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mannlab.contracts import Bag, Batch, Bits, Image, Memory, Split, Task, Token
from mannlab.draws import Draws
from mannlab.errors import ConfigError, choices, require
from mannlab.inspection.sample import Floats, Head, Row, Sample, Slots
from mannlab.inspection.watch import Holding, Look, Looking
from mannlab.model import MANN, assemble
from mannlab.model.hosted import watched
from mannlab.progress import progress
from mannlab.training.checkpoints import check_data, load_weights, read_checkpoint
from mannlab.training.data import EVALUATION_SEED, place
from mannlab.training.environment import quiet, seed_everything, set_threads

SHOWN = 48  # slots at most
LEAST = 8
TOUCHED = 0.02  # of the heaviest: less is not worth a line
TOP = 4  # slots that are named of each head and step
ROOM = 1 << 24  # numbers that contents may take


def look(config: Mapping[str, Any], checkpoint: Path, split: str | None = None, index: int = 0) -> Sample:
    """One sample of a run's data through its trained model.

    Args:
        config: the run's configuration, perhaps with other options of the task.
        checkpoint: a ``.ckpt`` file.
        split: such as ``test`` or ``test_length_20``; None: the main test set.
        index: which sample of it.

    Raises:
        ConfigError: there is no such split or sample.
        CheckpointError: the checkpoint is missing, damaged, refused, or does not fit.
    """
    quiet()
    seed_everything(config["seed"])
    set_threads(config)
    saved = read_checkpoint(checkpoint)
    model, task = assemble(config)
    check_data(saved, task, checkpoint)
    load_weights(model, saved, checkpoint, config)
    chosen = find_split(task, split)
    most = chosen.samples
    require(
        index >= 0 and (most is None or index < most),
        f"sample: {index} is not allowed: the split '{chosen.stream}' has {most:,} samples."
        if most is not None
        else f"sample: {index} is not allowed.",
        f"They are numbered from 0{f' to {most - 1}' if most is not None else ''}.",
    )
    on_gpu = _accelerator(config) in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    model = model.to("cuda" if on_gpu else "cpu").eval()
    seed = int(config["seed"]) if chosen.name == "train" else EVALUATION_SEED
    if chosen.name == "train":
        chosen = replace(chosen, lanes=int(config.get("batch_size", 1)))
    facts = {
        "task": type(task).label(config["task"]),
        "model": f"{config['controller'].get('name')} + {config['memory'].get('name')}",
        "sample": f"{index} of {chosen.stream}",
        "step": f"{int(saved.get('global_step', 0)):,}",
        "checkpoint": str(checkpoint),
    }
    return record(model, task, chosen, Draws(seed, chosen.stream), index, facts)


def _accelerator(config: Mapping[str, Any]) -> str:
    return str((config.get("trainer") or {}).get("accelerator", "auto"))


def find_split(task: Task, name: str | None) -> Split:
    """A split by the name that its metrics have; ``length_20`` is short for ``test_length_20``.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {split.stream: split for stage in ("test", "val", "train") for split in task.splits(stage)}
    if name is None:
        return next(iter(known.values()))
    found = known.get(name) or known.get(f"test_{name}")
    if found is None:
        raise ConfigError(f"split: there is no '{name}'.", choices(name, known, "splits"))
    return found


@torch.no_grad()
def record(
    model: MANN, task: Task, split: Split, draws: Draws, index: int, facts: dict[str, str] | None = None
) -> Sample:
    """One sample through a model in evaluation mode, on the model's device."""
    task.prepare()
    parameter = next(model.parameters())
    batch = place(task.batch(split, draws, index, 1), parameter.device, parameter.dtype)
    steps = batch.targets.shape[1] if batch.valid is None else int(batch.valid[0].sum())
    batch = batch.apply(lambda tensor: tensor[:, :steps] if _timed(tensor, batch) else tensor)
    batch = replace(batch, valid=None)
    state = _before(model, task, split, draws, index, parameter) if task.continuous else None

    looking = Looking()
    with watched(model, looking):
        logits = model.run(batch.inputs, None, state=_copy(model, state), trace=looking)[0]
    chosen = {memory: choose(titles, looking.counts[memory]) for memory, titles in looking.seen.items()}
    holding = Holding({memory: slots for memory, slots in chosen.items() if steps * len(slots) < ROOM})
    if chosen:
        with watched(model, holding):
            model.run(batch.inputs, None, state=_copy(model, state), trace=holding)

    score = task.score(logits, batch)
    metrics = {
        name: float(total) / float(count) for name, (total, count) in score.metrics.items() if float(count)
    }
    batch, logits = batch.to("cpu"), logits.float().cpu()
    inputs = [input_row(task, key, batch) for key in task.spec.inputs]
    answered = answers(task, batch, logits)
    suffixes = dict(model.named_memories())
    memories = [
        slots_of(memory, suffixes.get(memory, ""), looking, chosen[memory], holding, inputs)
        for memory in looking.seen
    ]
    return Sample(
        facts=facts or {},
        inputs=inputs,
        metrics=metrics,
        memories=memories,
        segment=model.controller.segment,
        note="" if memories else nothing(model),
        **answered,
    )


def _timed(tensor: Tensor, batch: Batch) -> bool:
    return tensor.dim() > 1 and tensor.shape[1] == batch.targets.shape[1]


def _copy(model: MANN, state: Any) -> Any:
    return None if state is None else state._replace(memory=model.memory.snapshot(state.memory))


def _before(model: MANN, task: Task, split: Split, draws: Draws, index: int, like: Tensor) -> Any:
    """The state that a text's earlier samples of the same lane leave."""
    state = None
    for earlier in progress(range(index % split.lanes, index, split.lanes), "Reading what came before"):
        batch = place(task.batch(split, draws, earlier, 1), like.device, like.dtype)
        state = model.run(batch.inputs, batch.valid, state=state if batch.continues else None)[1]
        state = model.detach(state)
    here = task.batch(split, draws, index, 1)
    return state if here.continues else None


def nothing(model: MANN) -> str:
    """Why there is nothing to show of a memory."""
    names = [type(memory).__name__ for memory, _ in model.named_memories()]
    if names == ["NoMemory"]:
        return "This model has no memory: what it knows of earlier steps is in its controller."
    return f"{', '.join(names)} does not show where it reads and writes (no Memory.trace)."


# ---------------------------------------------------------------------- the stream


def input_row(task: Task, key: str, batch: Batch) -> Row:
    """A channel of the first sequence."""
    channel, values = task.spec.inputs[key], batch.inputs[key][0]
    title = "input" if len(task.spec.inputs) == 1 else key
    if isinstance(channel, Token):
        return Row(title, [task.spell(key, symbol) for symbol in values.tolist()])
    if isinstance(channel, Bag):
        bags = [[task.spell(key, symbol) for symbol in bag if symbol >= 0] for bag in values.tolist()]
        return Row(title, [" ".join(bag) for bag in bags])
    if isinstance(channel, Image):
        pixels = (values.float().mean(1).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return Row(title, [""] * len(pixels), images=pixels)
    cells = values.float().numpy()
    return Row(title, [say_cells(cell) for cell in cells], cells=cells)


def say_cells(cell: Floats) -> str:
    """Numbers of about 0 to 1 as characters, one each."""
    return "".join(" " if np.isnan(x) else "·" if x < 0.25 else "▫" if x < 0.5 else "▪" for x in cell)


def answers(task: Task, batch: Batch, logits: Tensor) -> dict[str, Any]:
    """Target, output, and which answers are right, of the first sequence."""
    scored, wanted, said = batch.scored[0].bool(), batch.targets[0], logits[0]
    if isinstance(task.spec.target, Bits):
        odds = torch.sigmoid(said)
        right = ((odds > 0.5) == (wanted > 0.5)).all(-1)
        sure = torch.maximum(odds, 1 - odds).prod(-1)
        rows = {
            name: Row(name, [say_cells(cell) for cell in cells], cells=cells)
            for name, cells in (("target", _asked(wanted.float(), scored)), ("output", _asked(odds, scored)))
        }
    else:
        sure, best = torch.softmax(said, -1).max(-1)
        right, sure = (best == wanted).all(-1), sure.prod(-1)
        asked = scored.tolist()
        rows = {
            name: Row(
                name, [_words(task, group) if ask else "" for group, ask in zip(groups, asked, strict=True)]
            )
            for name, groups in (("target", wanted.tolist()), ("output", best.tolist()))
        }
    return {
        **rows,
        "scored": scored.numpy(),
        "right": (right & scored).numpy(),
        "sure": torch.where(scored, sure, 0).numpy(),
    }


def _asked(row: Tensor, scored: Tensor) -> Floats:
    return np.asarray(torch.where(scored.unsqueeze(-1), row, torch.nan).numpy(), np.float32)


def _words(task: Task, group: Sequence[int]) -> str:
    words = [task.spell("target", symbol) for symbol in group]
    return ("" if all(len(word) == 1 for word in words) else " ").join(words)


# ---------------------------------------------------------------------- memories


def choose(titles: Mapping[str, Sequence[Look]], count: int) -> Tensor:
    """Which slots to show: all of few, else those that heads looked at most, in order, ``int64[S]``."""
    if count <= SHOWN:
        return torch.arange(count)
    weight = torch.zeros(count)
    for looks in titles.values():
        peak = torch.zeros(count)
        for slots, weights in looks:
            peak.scatter_reduce_(0, slots.flatten(), weights.flatten(), "amax")
        weight += peak
    heaviest = weight.topk(SHOWN)
    worth = int((heaviest.values > TOUCHED * heaviest.values[0]).sum())
    return heaviest.indices[: max(LEAST, worth)].sort().values


def slots_of(
    memory: Memory[Any],
    suffix: str,
    looking: Looking,
    shown: Tensor,
    holding: Holding,
    inputs: Sequence[Row],
) -> Slots:
    """What there is to show of one memory."""
    heads = [head for title, looks in looking.seen[memory].items() for head in heads_of(title, looks, shown)]
    rows = holding.rows.get(memory)
    numbers = shown.tolist()
    said = next((row.texts for row in inputs if row.cells is None and any(row.texts)), None)
    if memory.slot_a_step and said is not None:
        # In a stream that goes on there are slots of earlier parts, whose words are not known.
        before = max(0, looking.counts[memory] - len(said))
        words = [*map(str, range(before)), *said]
        names = [words[number] if number < len(words) else str(number) for number in numbers]
    else:
        names = [str(number) for number in numbers]
    return Slots(
        title=suffix.strip("_").replace("_", " "),
        count=looking.counts[memory],
        shown=shown.numpy(),
        names=names,
        heads=heads,
        rows=None if rows is None else torch.stack(rows).numpy(),
        fixed=not memory.stateful,
        note="" if rows is not None else f"{type(memory).__name__} does not show what its slots hold.",
    )


def heads_of(title: str, looks: Sequence[Look], shown: Tensor) -> list[Head]:
    """The heads of one kind, on the slots that are shown."""
    count = looks[0][0].shape[0]
    on_shown = torch.stack([_onto(look, shown) for look in looks])
    tops = [weights.topk(min(TOP, weights.shape[-1]), dim=-1) for _, weights in looks]
    slots = torch.stack([named.gather(-1, top.indices) for (named, _), top in zip(looks, tops, strict=True)])
    weights = torch.stack([top.values for top in tops])
    word = title.removesuffix(" weights")
    return [
        Head(
            word if count == 1 else f"{word} {head + 1}",
            word.startswith("write"),
            on_shown[:, head].numpy(),
            slots[:, head].numpy(),
            weights[:, head].numpy(),
        )
        for head in range(count)
    ]


def _onto(look: Look, shown: Tensor) -> Tensor:
    """Weights on the shown slots, ``[heads, S]``."""
    slots, weights = look
    places = torch.searchsorted(shown, slots.contiguous()).clamp_max(len(shown) - 1)
    there = shown[places] == slots
    return weights.new_zeros(len(slots), len(shown)).scatter_add_(-1, places, weights * there)
