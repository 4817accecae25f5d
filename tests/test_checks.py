"""The shipped checks: every registered component passes, and broken ones are caught."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest
import torch
from torch import nn

from mannlab import registry
from mannlab.checks import check_conf, check_controller, check_memory, check_task
from mannlab.contracts import Batch, Bits, Controller, Memory, Objective, Split, StreamSpec, Task, Vector
from mannlab.scoring import bit_score

SMALL = {
    "lstm": {"hidden": 6, "layers": 2},
    "gru": {"hidden": 6, "layers": 2},
    "feedforward": {"hidden": 6},
    "transformer": {"width": 8, "heads": 2, "feedforward": 8},
    "dense": {"slots": 5, "width": 3, "read_heads": 2, "write_heads": 2},
    "lrua": {"slots": 5, "width": 3, "read_heads": 2},
    "dnc": {"slots": 5, "width": 3, "read_heads": 2, "sharpness": True},
    "sparse": {"slots": 9, "width": 3, "heads": 2},
    "sparse_dnc": {"slots": 9, "width": 3, "heads": 2, "sparsity": 2, "links": 3},
    "copy": {"bits": 3, "max_length": 4, "bucket": 1},
    "associative_recall": {"bits": 3, "item_length": 2, "max_items": 4, "bucket": 1},
    "omniglot": {"source": "glyphs", "classes": 3, "episode_length": 6},
    "babi": {"source": "generated", "size": "1k"},
    "translation": {"source": "numbers", "pairs": 500, "largest": 999},
}
CHECKS = {"memory": check_memory, "controller": check_controller, "task": check_task}


def every() -> list[tuple[str, str]]:
    registry.load_builtins()
    return [(kind, name) for kind in CHECKS for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), every())
def test_every_registered_component_keeps_its_contract(kind, name):
    CHECKS[kind](name, **SMALL.get(name, {}))


class SumState(NamedTuple):
    total: torch.Tensor


class Sum(Memory[SumState]):
    """Reads the running sum of what it is told: right in every way."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()
        self.interface_size = self.read_size = width

    def init_state(self, batch):
        return SumState(torch.zeros(batch, self.read_size, dtype=torch.float64))

    def forward(self, interface, state):
        total = state.total + interface
        return total, SumState(total)


class PaddingWrites(Sum):
    def step(self, interface, state, valid=None):
        return self.forward(interface, state)


class MixesRows(Sum):
    def forward(self, interface, state):
        return super().forward(interface + interface.mean(0), state)


class LiesAboutState(Sum):
    stateful = False


class NotANumber(Sum):
    def forward(self, interface, state):
        total = state.total + (interface * 0).abs().sqrt()
        return total, SumState(total)


class SequenceDiffers(Sum):
    def sequence(self, interface, state, valid=None):
        reads, state = super().sequence(interface, state, valid)
        return reads * 1.01, state


class Consumes(Sum):
    """Changes its state in place, and its snapshot is no copy."""

    def forward(self, interface, state):
        state.total.add_(interface.detach())
        return state.total.clone(), state

    def step(self, interface, state, valid=None):
        told = interface if valid is None else interface * valid.unsqueeze(-1)
        return self.forward(told, state)


class WritesIntoItsState(Sum):
    def forward(self, interface, state):
        state.total[:] = interface
        return state.total.sin(), state


def test_a_right_memory_passes():
    check_memory(Sum, width=2)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (PaddingWrites, "padding writes"),
        (MixesRows, "rows of a batch"),
        (LiesAboutState, "stateful"),
        (NotANumber, "finite"),
        (SequenceDiffers, "loop over step"),
        (Consumes, "snapshot"),
        (WritesIntoItsState, "the backward pass must run: .* in place"),
    ],
)
def test_a_broken_memory_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_memory(broken)


class Peeks(Controller[tuple]):
    """Averages over all steps, later ones too."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = 2
        self.linear = nn.Linear(input_size, 2)

    def init_state(self, batch):
        return ()

    def forward(self, x, state):
        return self.linear(x), state

    def sequence(self, x, state, valid=None):
        return self.linear(x) + x.mean(1, keepdim=True)[..., :2], state


def test_a_controller_that_peeks_is_caught():
    with pytest.raises(AssertionError, match="loop over step"):
        check_controller(Peeks)


class Echo(Task):
    """Say the bit that came in."""

    objective = Objective("bit_errors_per_sequence")

    def __init__(self, *, steps: int = 3) -> None:
        self.steps = steps
        self.spec = StreamSpec({"x": Vector(1)}, Bits(1))

    def splits(self, stage):
        return [Split(stage, None if stage == "train" else 4)]

    def batch(self, split, draws, start, count):
        bits = torch.tensor(draws.bits(start, count, self.steps)).float().unsqueeze(-1)
        return Batch({"x": bits}, bits, torch.ones(count, self.steps))

    def score(self, logits, batch):
        return bit_score(logits, batch)


class DependsOnBatch(Echo):
    def batch(self, split, draws, start, count):
        made = super().batch(split, draws, start, count)
        return Batch({"x": made.inputs["x"] * count}, made.targets, made.scored)


class IgnoresSeed(Echo):
    def batch(self, split, draws, start, count):
        bits = torch.ones(count, self.steps, 1)
        return Batch({"x": bits}, bits, torch.ones(count, self.steps))


class SumsOverBatch(Echo):
    def score(self, logits, batch):
        score = bit_score(logits, batch)
        return type(score)(score.loss * len(batch), score.metrics)


class ScoresPadding(Echo):
    def batch(self, split, draws, start, count):
        made = super().batch(split, draws, start, count)
        valid = torch.ones(count, self.steps)
        valid[:, -1] = 0
        return Batch(made.inputs, made.targets, made.scored, valid)


def test_a_right_task_passes():
    check_task(Echo)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (DependsOnBatch, "index alone"),
        (IgnoresSeed, "another seed"),
        (SumsOverBatch, "mean over sequences"),
        (ScoresPadding, "must not be scored"),
    ],
)
def test_a_broken_task_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_task(broken)


# ---------------------------------------------------------------------- yaml files


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("memory/a.yaml", "# Says\nname: none\n", None),
        ("memory/a.yaml", "# Says\nname: product_key\nkeys: 5\n", "has no option 'keys'"),
        ("memory/a.yaml", "# Says\nname: sparse_dnc\n", r"memory/a\.yaml: add \["),
        (
            "controller/a.yaml",
            "# Says\nname: gru\nhidden: many\nlayers: 1\n",
            r"hidden: 'many' is not allowed",
        ),
        ("controller/a.yaml", "# Says\nname: gru\nhidden: ${task.x}\nlayers: ???\n", None),
        ("memory/a.yaml", "# Says\nslots: 5\n", "'name' must say which memory"),
        ("memory/a.yaml", "name: none\n", "say in a comment what it is"),
        ("memory/a.yaml", "# Says\n", "must hold keys and values"),
        ("memory/a.yml", "# Says\nname: none\n", "reads .yaml only"),
        ("experiment/a.yaml", "# Says\nseed: 3\n", "must begin with '# @package _global_'"),
        ("experiment/a.yaml", "# @package _global_\n# Says\nseed: 3\n", None),
        ("a.yaml", "# Says\nname: none\n", "there is no yaml file"),
    ],
)
def test_the_yaml_files_of_a_plugin_are_checked(tmp_path, monkeypatch, path, text, said):
    place = tmp_path / "pack_of_parts" / "conf" / path
    place.parent.mkdir(parents=True)
    place.write_text(text)
    (tmp_path / "pack_of_parts" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pack_of_parts", raising=False)
    if said is None:
        check_conf("pack_of_parts")
    else:
        with pytest.raises((AssertionError, registry.ConfigError), match=said):
            check_conf("pack_of_parts")
