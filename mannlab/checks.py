"""The contracts as tests, for authors of memories, controllers and tasks.

Call the one that fits from a test of yours, with options that make the component small::

    from mannlab.checks import check_memory
    check_memory("ring", slots=4, width=3)

Each raises AssertionError that says which part of the contract is broken, and returns None.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from mannlab.contracts import Bag, Batch, Bits, Classes, Controller, Image, Memory, Split, Task, Token, Vector
from mannlab.draws import Draws
from mannlab.registry import ROOMS, build, conform, get, options

BATCH, STEPS, INPUT = 3, 5, 4
Run = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]


def check_memory(memory: str | type, **settings: Any) -> None:
    """Hold a memory (a registered name or a class) to the contract of ``mannlab.contracts.Memory``."""
    module = _make("memory", memory, settings)
    assert isinstance(module, Memory), "a memory must subclass mannlab.contracts.Memory"
    for name in ("interface_size", "read_size"):
        size = getattr(module, name, None)
        assert isinstance(size, int), f"set self.{name} to an int in __init__ (it is {size!r})"
        assert size >= 0, f"self.{name} must not be negative (it is {size})"
    unknown = module.resizable - options(type(module)).keys()
    assert not unknown, f"resizable names what is no option: {', '.join(sorted(unknown))}"
    _check_recurrence(module, module.interface_size, module.read_size)
    if not module.stateful:
        _check_stateless(module)
    _, state = _steps(module)(_stream(module.interface_size), module.init_state(BATCH), None)
    for title, weights in module.trace(state).items():
        assert weights.dim() == 3, f"trace '{title}' must be [B, heads, N]; it is {tuple(weights.shape)}"
        assert weights.shape[0] == BATCH, f"trace '{title}' must be batch first"
        inside = bool((weights >= -1e-9).all() and (weights <= 1 + 1e-9).all())
        assert inside, f"trace '{title}' must lie in [0, 1]"
    reads = module.initial_reads(BATCH, torch.zeros(1, dtype=torch.float64))
    assert reads.shape == (BATCH, module.read_size), "initial_reads must be [B, read_size]"


def check_controller(controller: str | type, **settings: Any) -> None:
    """Hold a controller (a registered name or a class) to ``mannlab.contracts.Controller``."""
    module = _make("controller", controller, settings, INPUT)
    assert isinstance(module, Controller), "a controller must subclass mannlab.contracts.Controller"
    assert isinstance(getattr(module, "output_size", None), int), "set self.output_size to an int in __init__"
    _check_recurrence(module, INPUT, module.output_size)


def check_task(task: str | type, **settings: Any) -> None:
    """Hold a task (a registered name or a class) to the contract of ``mannlab.contracts.Task``."""
    made = _make("task", task, settings)
    assert isinstance(made, Task), "a task must subclass mannlab.contracts.Task"
    made.prepare()
    made.prepare()
    train = made.splits("train")
    assert len(train) == 1, "splits('train') must be one split"
    assert train[0].samples is None, "the training split must be endless (samples=None)"
    for stage in ("val", "test"):
        splits = made.splits(stage)
        assert splits, f"splits('{stage}') must not be empty"
        labels = [split.label for split in splits]
        assert len(set(labels)) == len(labels), f"splits('{stage}') must have labels of their own: {labels}"
        for split in splits:
            assert split.samples is not None, f"split '{split.stream}' must have a number of samples"
            assert split.samples >= 1, f"split '{split.stream}' must have samples"
    for split in [train[0], made.splits("val")[0], made.splits("test")[-1]]:
        _check_split(made, split)
    if made.first_ceiling is not None:
        for ceiling in (made.first_ceiling, min(2 * made.first_ceiling, made.last_ceiling or math.inf)):
            _check_split(made, replace(train[0], ceiling=int(ceiling)))
    mine = made.batch(train[0], Draws(0, "train"), 0, 4)
    other = made.batch(train[0], Draws(1, "train"), 0, 4)
    assert not _equal(mine, other), "another seed must give other samples: draw from `draws`, and only there"


def check_conf(package: str) -> None:
    """Hold the yaml files in a plugin's folder ``conf`` to what its components take.

    Args:
        package: the package that has the folder; import the modules of its components before.
    """
    folder = Path(next(iter(importlib.import_module(package).__path__)), "conf")
    wrong = [str(path) for path in folder.rglob("*.yml")]
    assert not wrong, f"Hydra reads .yaml only; rename {wrong}"
    files = sorted(folder.glob("*/*.yaml"))
    assert files, f"there is no yaml file in {folder}/<group>/"
    for path in files:
        text = path.read_text(encoding="utf-8")
        values, group = yaml.safe_load(text), path.parent.name
        where = f"{group}/{path.name}"
        assert isinstance(values, dict), f"{where}: it must hold keys and values"
        if group in ROOMS:
            _check_preset(where, group, values)
        elif group in ("experiment", "recipe"):
            assert text.startswith("# @package _global_"), (
                f"{where}: it must begin with '# @package _global_'"
            )
        described = [line for line in text.splitlines() if re.match(r"#\s*[^@\s]", line)]
        assert described, f"{where}: say in a comment what it is, for mannlab list"


def _check_preset(where: str, kind: str, values: dict[str, Any]) -> None:
    name = values.pop("name", None)
    assert isinstance(name, str), f"{where}: 'name' must say which {kind} it is for"
    known = options(get(kind, name))
    for key, value in values.items():
        assert key in known, f"{where}: {kind} '{name}' has no option '{key}', but {sorted(known)}"
        if not (isinstance(value, str) and ("${" in value or value == "???")):
            conform(value, known[key].annotation, f"{where}: {key}")
    lacks = sorted(set(known) - set(values))
    assert not lacks, f"{where}: add {lacks}, or they cannot be set on the command line"


# ---------------------------------------------------------------------- memories and controllers


def _make(kind: str, what: str | type, settings: dict[str, Any], *context: Any) -> Any:
    torch.manual_seed(0)
    if isinstance(what, str):
        made = build(kind, what, *context, **settings)
    else:
        for name, option in options(what).items():
            if name in settings:
                settings[name] = conform(settings[name], option.annotation, f"{kind}.{name}")
        made = what(*context, **settings)
    allowed = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    extra = [p.name for p in inspect.signature(type(made)).parameters.values() if p.kind not in allowed]
    assert len(extra) <= len(context), (
        f"options must be keyword-only (put * before them): {extra[len(context) :]}"
    )
    return made.double() if isinstance(made, nn.Module) else made


def _stream(size: int, seed: int = 1, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, steps, size, dtype=torch.float64, generator=generator)


def _steps(module: Any) -> Run:
    def run(x: Tensor, state: Any, valid: Tensor | None) -> tuple[Tensor, Any]:
        outputs = []
        for t in range(x.shape[1]):
            out, state = module.step(x[:, t], state, None if valid is None else valid[:, t])
            outputs.append(out)
        return torch.stack(outputs, 1), state

    return run


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(one, other, rtol=1e-6, atol=1e-8))


def _check_recurrence(module: Any, input_size: int, output_size: int) -> None:
    module.eval()
    x = _stream(input_size)
    stepped, _ = _steps(module)(x, module.init_state(BATCH), None)
    assert stepped.shape == (BATCH, STEPS, output_size), (
        f"a step must give [B, {output_size}]; five of them gave {tuple(stepped.shape)}"
    )
    assert stepped.dtype == torch.float64, "outputs must have the inputs' dtype (float64 was given)"
    whole, _ = module.sequence(x, module.init_state(BATCH), None)
    assert _same(whole, stepped), "sequence() must equal a loop over step()"
    again, _ = _steps(module)(x, module.init_state(BATCH), None)
    assert torch.equal(again, stepped), "two runs on the same input must be equal (in evaluation mode)"

    changed = x.clone()
    changed[:, -1] += 3
    peeked, _ = module.sequence(changed, module.init_state(BATCH), None)
    assert _same(peeked[:, :-1], whole[:, :-1]), "outputs must not depend on later inputs"
    order = torch.tensor([2, 0, 1])
    shuffled, _ = module.sequence(x[order], module.init_state(BATCH), None)
    alone, _ = module.sequence(x[:1], module.init_state(1), None)
    rows_apart = _same(shuffled, whole[order]) and _same(alone, whole[:1])
    assert rows_apart, "the rows of a batch must not depend on each other"

    for run in (module.sequence, _steps(module)):
        _check_padding(module, run, x, input_size)
    _check_gradients(module, x)
    twin_state = module.state_dict()
    module.load_state_dict(twin_state)
    reloaded, _ = module.sequence(x, module.init_state(BATCH), None)
    assert torch.equal(reloaded, whole), "state_dict() must hold everything that outputs depend on"
    if isinstance(module, Memory):
        _check_snapshot(module, x)


def _check_padding(module: Any, run: Run, x: Tensor, input_size: int) -> None:
    """Rubbish in padded steps changes no real step and nothing afterwards."""
    valid = torch.ones(BATCH, STEPS, dtype=torch.float64)
    valid[0, 2:] = 0
    more = _stream(input_size, seed=2)
    outcomes = []
    for rubbish in (0.0, 50.0):
        dirty = x.clone()
        dirty[0, 2:] = rubbish
        first, state = run(dirty, module.init_state(BATCH), valid)
        then, _ = _steps(module)(more, state, None)
        outcomes.append((first[0, :2], first[1:], then))
        assert torch.isfinite(first).all(), "outputs of padded steps must be finite"
    for clean, spoilt in zip(*outcomes, strict=True):
        assert _same(clean, spoilt), "padding writes: hold the state where valid is 0 (see step and hold)"
    short, state = _steps(module)(x[:1, :2], module.init_state(1), None)
    then, _ = _steps(module)(more[:1], state, None)
    held = _same(outcomes[0][0], short[0]) and _same(outcomes[0][2][:1], then)
    assert held, "a padded sequence must end in the state of its last real step"


def _check_gradients(module: Any, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    outputs, _ = module.sequence(x, module.init_state(BATCH), None)
    if not outputs.requires_grad or outputs.numel() == 0:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    try:
        found = torch.autograd.grad(outputs.square().sum(), [x, *parameters], allow_unused=True)
    except RuntimeError as error:
        what = "the backward pass must run: does a step change tensors of its state in place?"
        raise AssertionError(f"{what} {error}") from error
    for grad in found:
        assert grad is None or torch.isfinite(grad).all(), "gradients must be finite, from the first step on"


def _check_snapshot(memory: Memory[Any], x: Tensor) -> None:
    _, state = _steps(memory)(x[:, :2], memory.init_state(BATCH), None)
    kept = memory.snapshot(state)
    first, _ = _steps(memory)(x[:, 2:], state, None)
    second, _ = _steps(memory)(x[:, 2:], kept, None)
    assert _same(first, second), "snapshot() must stay good when the state it was taken of is used"


def _check_stateless(memory: Memory[Any]) -> None:
    x = _stream(memory.interface_size)
    other = x.clone()
    other[:, 0] += 5
    one, _ = memory.sequence(x, memory.init_state(BATCH), None)
    two, _ = memory.sequence(other, memory.init_state(BATCH), None)
    assert _same(one[:, 1:], two[:, 1:]), "reads depend on earlier steps: leave stateful = True"


# ---------------------------------------------------------------------- tasks


def _equal(one: Batch, other: Batch) -> bool:
    pairs = [(one.targets, other.targets), *((one.inputs[key], other.inputs[key]) for key in one.inputs)]
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _check_split(task: Task, split: Split) -> None:
    draws = Draws(0, split.stream)
    whole = task.batch(split, draws, 0, 4)
    assert len(whole) == 4, f"batch(start, count) must give count sequences; asked for 4, got {len(whole)}"
    _check_shapes(task, whole)
    for start in (0, 2):
        part = task.batch(split, draws, start, 2)
        steps = part.targets.shape[1]
        for key, tensor in [("targets", part.targets), *part.inputs.items()]:
            full = whole.targets if key == "targets" else whole.inputs[key]
            same = torch.equal(full[start : start + 2, :steps], tensor)
            assert same, f"{key}: a sample must depend on its index alone, not on the batch it comes in"
    logits = _logits(task, whole)
    score = task.score(logits, whole)
    assert score.loss.dim() == 0, "the loss must be a scalar"
    assert torch.isfinite(score.loss), "the loss must be finite"
    (grad,) = torch.autograd.grad(score.loss, logits)
    unscored = grad.flatten(2).abs().sum(-1) * (1 - whole.scored)
    assert unscored.sum() == 0, "the loss must not depend on steps that are not scored"
    if task.asks_few:
        few = task.score(logits[whole.scored.bool()], whole)
        same = torch.allclose(few.loss, score.loss) and all(
            torch.allclose(torch.stack(few.metrics[name]), torch.stack(pair))
            for name, pair in score.metrics.items()
        )
        assert same, "asks_few: score() must be the same of the logits of scored steps alone"
    assert task.objective.metric in score.metrics, (
        f"score() must give the objective '{task.objective.metric}'"
    )
    named = {
        **score.metrics,
        **task.derive({name: float(total / count) for name, (total, count) in score.metrics.items()}),
    }
    assert task.objective.watched in named, f"score() or derive() must give '{task.objective.watched}'"
    assert task.objective.mode in ("min", "max"), "objective.mode must be 'min' or 'max'"
    halves = [
        task.score(logits[rows], whole.apply(lambda tensor, rows=rows: tensor[rows])).loss
        for rows in (slice(0, 2), slice(2, 4))
    ]
    mean = torch.allclose(sum(halves, torch.zeros(())) / 2, score.loss, rtol=1e-4)
    assert mean, "the loss must be a mean over sequences, or shares of a batch do not average to the whole"


def _check_shapes(task: Task, batch: Batch) -> None:
    size, steps = batch.targets.shape[:2]
    for name, channel in task.spec.inputs.items():
        tensor = batch.inputs[name]
        tail = {
            Vector: lambda c: (c.size,),
            Token: lambda c: (),
            Bag: lambda c: (c.size,),
            Image: lambda c: (c.channels, c.height, c.width),
        }[type(channel)](channel)
        assert tensor.shape == (size, steps, *tail), (
            f"channel '{name}' must be [B, T, {tail}]: {tuple(tensor.shape)}"
        )
        whole_numbers = tensor.dtype == torch.int64
        assert whole_numbers == isinstance(channel, Token | Bag), f"channel '{name}' has dtype {tensor.dtype}"
        if isinstance(channel, Bag):
            assert (tensor >= -1).all(), f"channel '{name}' must have -1 where there is no symbol"
            assert (tensor.ge(0).long().diff(dim=-1) <= 0).all(), f"channel '{name}' must have symbols first"
        if isinstance(channel, Token | Bag):
            assert (tensor < channel.vocabulary).all(), f"channel '{name}' exceeds its vocabulary"
    target = task.spec.target
    tail = (target.size,) if isinstance(target, Bits) else (target.groups,)
    assert batch.targets.shape == (size, steps, *tail), f"targets must be [B, T, {tail}]"
    if isinstance(target, Classes):
        assert batch.targets.dtype == torch.int64, "targets of classes must be int64"
    assert batch.scored.shape == (size, steps), "scored must be [B, T]"
    assert set(batch.scored.unique().tolist()) <= {0.0, 1.0}, "scored must be 0 or 1"
    assert (batch.scored.sum(1) > 0).all(), "every sequence must have a scored step"
    if batch.valid is not None:
        assert batch.valid.shape == (size, steps), "valid must be [B, T]"
        assert set(batch.valid.unique().tolist()) <= {0.0, 1.0}, "valid must be 0 or 1"
        assert (batch.valid.diff(dim=1) <= 0).all(), "padding must come last"
        assert (batch.scored <= batch.valid).all(), "a padded step must not be scored"


def _logits(task: Task, batch: Batch) -> Tensor:
    target = task.spec.target
    tail = (target.size,) if isinstance(target, Bits) else (target.groups, target.count)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch.targets.shape[:2], *tail, generator=generator).requires_grad_()
