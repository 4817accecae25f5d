"""Decoding: greedy and beam search agree, and a wide beam finds what trying everything finds."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mannlab.contracts import Bits, Classes, StreamSpec, Token, Vector
from mannlab.errors import ConfigError
from mannlab.model import MANN, decode
from mannlab.model.decode import Decoder, advance, beam_search, greedy, read

VOCABULARY, END = 5, 4
CONTROLLERS: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 9},
    "transformer": {"width": 8, "layers": 1, "heads": 2, "feedforward": 12, "context": 4},
}
MEMORIES: dict[str, dict[str, Any]] = {
    "none": {},
    "dense": {"slots": 6, "width": 4},
    "product_key": {"slots": 16, "width": 8, "heads": 2, "knn": 2, "key_width": 4},
    "sparse": {"slots": 8, "width": 4, "heads": 1},
}


def make(controller: str = "lstm", memory: str = "dense", seed: int = 0, sharp: float = 4.0) -> MANN:
    torch.manual_seed(seed)
    spec = StreamSpec({"token": Token(VOCABULARY)}, Classes(VOCABULARY))
    parts = ({"name": controller, **CONTROLLERS[controller]}, {"name": memory, **MEMORIES[memory]})
    model = MANN(*parts, spec).double().eval()
    with torch.no_grad():  # answers that depend on what was said
        model.head.linear.weight *= sharp
    return model


def score(model: MANN, prompt: list[int], answer: list[int]) -> float:
    """Log-probability of an answer, all at once instead of step by step."""
    stream = torch.tensor([prompt + answer[:-1]])
    logits = model({"token": stream})[0, len(prompt) - 1 :, 0].log_softmax(-1)
    return float(logits.gather(1, torch.tensor(answer).unsqueeze(1)).sum())


def exact(model: MANN, prompt: list[int], limit: int, penalty: float) -> tuple[list[int], float]:
    """The best of all answers that end within the limit."""
    found = []
    for length in range(1, limit + 1):
        for said in product(range(END), repeat=length - 1):
            found.append((score(model, prompt, [*said, END]) / length**penalty, list(said)))
    best = max(found)
    return best[1], best[0]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("controller", CONTROLLERS)
@torch.no_grad()
def test_greedy_says_the_likeliest_next_token(controller: str, memory: str) -> None:
    model = make(controller, memory)
    prompts, limits = [[0, 1, 2], [3], [2, 2], [1, 0, 3, 3, 2]], [6, 5, 1, 9]
    for prompt, limit, found in zip(prompts, limits, greedy(model, prompts, END, limits), strict=True):
        said: list[int] = []
        while len(said) < limit and END not in said:
            logits = model({"token": torch.tensor([prompt + said])})[0, -1, 0]
            said.append(int(logits.argmax()))
        assert found.tokens == [token for token in said if token != END]
        assert found.ended == (END in said)
        assert found.score == pytest.approx(score(model, prompt, said) / len(said), rel=1e-5)


@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "sparse"])
@pytest.mark.parametrize("controller", CONTROLLERS)
@torch.no_grad()
def test_a_beam_of_one_is_greedy(controller: str, memory: str) -> None:
    for seed in range(3):
        model = make(controller, memory, seed)
        prompts, limits = [[0, 1, 2], [3], [2, 2, 0, 1]], [7, 4, 6]
        searched = beam_search(model, prompts, END, limits, beam=1)
        for one, other in zip(searched, greedy(model, prompts, END, limits), strict=True):
            assert (one.tokens, one.ended) == (other.tokens, other.ended)
            assert one.score == pytest.approx(other.score, rel=1e-5)


@given(
    seed=st.integers(0, 50),
    penalty=st.sampled_from([0.0, 0.6, 1.0]),
    memory=st.sampled_from(["none", "dense"]),
)
@settings(max_examples=12, deadline=None)
@torch.no_grad()
def test_a_beam_as_wide_as_all_pairs_finds_the_best_of_two_tokens(
    seed: int, penalty: float, memory: str
) -> None:
    model = make(memory=memory, seed=seed, sharp=1.0)
    prompts = [[0, 1], [3, 3, 2], [2]]
    found = beam_search(model, prompts, END, [2, 2, 2], beam=VOCABULARY**2, length_penalty=penalty)
    for prompt, answer in zip(prompts, found, strict=True):
        tokens, value = exact(model, prompt, 2, penalty)
        assert answer.tokens == tokens
        assert answer.score == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("controller", CONTROLLERS)
@torch.no_grad()
def test_a_beam_of_all_beginnings_finds_the_best_of_all(controller: str) -> None:
    for seed in range(3):
        model = make(controller, seed=seed, sharp=2.0)
        (found,) = beam_search(model, [[1, 2, 0]], END, [4], beam=VOCABULARY**3, length_penalty=0.7)
        tokens, value = exact(model, [1, 2, 0], 4, 0.7)
        assert found.tokens == tokens
        assert found.score == pytest.approx(value, rel=1e-5)


def test_early_ends_do_not_stop_the_search_for_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step the end is second best, so many bad answers are finished before the good one."""

    def scores(place: Tensor) -> Tensor:
        sure = torch.full((len(place), VOCABULARY), 0.01 / 3)
        sure[:, END] = 0.09
        sure[torch.arange(len(place)), place % END] = 0.9
        sure[place == 8] = torch.tensor([0.0025] * 4 + [0.99])
        return sure.log()

    first = torch.zeros(2, dtype=torch.int64)
    monkeypatch.setattr(decode, "read", lambda model, prompts: (scores(first), first))
    monkeypatch.setattr(decode, "advance", lambda model, tokens, state: (scores(state + 1), state + 1))
    toy: Any = SimpleNamespace(reorder=lambda state, rows: state[rows])
    for found in beam_search(toy, [[0], [0]], END, [20, 20], beam=3):
        assert found.tokens == [0, 1, 2, 3, 0, 1, 2, 3]
        assert found.score == pytest.approx((8 * math.log(0.9) + math.log(0.99)) / 9, rel=1e-5)


@torch.no_grad()
def test_an_answer_does_not_depend_on_the_batch_it_comes_in() -> None:
    model = make("transformer", "dense")
    prompts, limits = [[0, 1, 2, 3], [3], [2, 2], [1]], [6, 3, 8, 5]
    together = beam_search(model, prompts, END, limits, beam=3)
    for prompt, limit, found in zip(prompts, limits, together, strict=True):
        (alone,) = beam_search(model, [prompt], END, [limit], beam=3)
        assert alone.tokens == found.tokens
        assert alone.score == pytest.approx(found.score, rel=1e-5)


def test_the_decoder_keeps_the_order_and_leaves_the_model_as_it_was() -> None:
    model = make(memory="product_key").train()
    decoder = Decoder(model, batch_size=2)
    prompts, limits = [[0, 1, 2, 3], [3], [2, 2], [1], [0, 0, 0]], [6, 3, 8, 5, 4]
    found = decoder(prompts, end=END, limits=limits)
    assert model.training
    assert all(memory.observing for memory, _ in model.named_memories())
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        for prompt, limit, answer in zip(prompts, limits, found, strict=True):
            assert greedy(model, [prompt], END, [limit])[0].tokens == answer.tokens
    assert decoder([], end=END, limits=[]) == []


@torch.no_grad()
def test_a_state_can_be_gone_on_from_in_another_order() -> None:
    for controller in CONTROLLERS:
        model = make(controller)
        _, state = read(model, [[0, 1], [2, 3], [1, 1]])
        rows = torch.tensor([2, 0, 0])
        after, _ = advance(model, torch.tensor([3, 1, 2]), model.reorder(state, rows))
        for row, (prompt, token) in enumerate([([1, 1], 3), ([0, 1], 1), ([0, 1], 2)]):
            alone, _ = read(model, [[*prompt, token]])
            assert torch.allclose(after[row], alone[0], atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"in place(.|\n)*task\.beam=1"):
        Decoder(make(memory="sparse"))([[1]], end=END, limits=[3], beam=2)
    with pytest.raises(ConfigError, match="beam: 0"):
        Decoder(make())([[1]], end=END, limits=[3], beam=0)
    spec = StreamSpec({"x": Vector(3)}, Bits(2))
    other = MANN({"name": "lstm"}, {"name": "none"}, spec)
    with pytest.raises(ConfigError, match="cannot continue"):
        Decoder(other)([[1]], end=END, limits=[3])


def test_what_is_not_a_number_gives_an_empty_answer() -> None:
    model = make()
    with torch.no_grad():
        model.head.linear.weight.fill_(torch.nan)
        (found,) = beam_search(model, [[0, 1]], END, [3], beam=3)
    assert (list(found.tokens), found.score) == ([], -math.inf)
