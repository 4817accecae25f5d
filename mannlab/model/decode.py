"""Continuing sequences of tokens: the likeliest token at each step, or a search among several (beam search).

Both step the whole model, so the memory is written and read while it speaks, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mannlab.contracts import Continuation
from mannlab.errors import ConfigError, require
from mannlab.model.mann import MANN
from mannlab.model.rest import at_rest
from mannlab.model.unroll import RunState
from mannlab.progress import progress


class Decoder:
    """A model as a ``mannlab.contracts.Generate``.

    Prompts of like length are answered together. The model is in evaluation mode meanwhile, keeps no
    gradients, and its memories do not count these steps.

    Args:
        model: one that takes and gives symbols of one vocabulary.
        batch_size: prompts at a time.
    """

    def __init__(self, model: MANN, batch_size: int = 64) -> None:
        self.model, self.batch_size = model, max(1, batch_size)

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        end: int,
        limits: Sequence[int],
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> list[Continuation]:
        """See ``mannlab.contracts.Generate``.

        Raises:
            ConfigError: ``beam`` is below 1 or the memory cannot search; the model's stream is another.
        """
        require(beam >= 1, f"beam: {beam} is not allowed.", "It must be at least 1.")
        search = greedy if beam == 1 else beam_search
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), limits[i]))
        found: list[Continuation | None] = [None] * len(prompts)
        # A beam makes that many rows of a prompt.
        size = max(1, self.batch_size // beam)
        with at_rest(self.model):
            for start in progress(range(0, len(order), size), "Answering freely", "batches"):
                part = order[start : start + size]
                given, most = [prompts[i] for i in part], [limits[i] for i in part]
                more = {} if beam == 1 else {"beam": beam}
                answers = search(self.model, given, end, most, length_penalty=length_penalty, **more)
                for i, answer in zip(part, answers, strict=True):
                    found[i] = answer
        return [answer for answer in found if answer is not None]


def _channel(model: MANN) -> str:
    """The name of the model's one channel."""
    name = model.encoder.shared_channel(model.head.target)
    if name is None:
        raise ConfigError(
            "This model cannot continue sequences.",
            "What comes in and what is asked must be symbols of one vocabulary.",
        )
    return name


def read(model: MANN, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, RunState]:
    """Read prompts, at least one token each.

    Returns:
        Log-probabilities of what comes after each, ``[B, V]`` in nats, and the state to go on from.
    """
    name, device = _channel(model), next(model.parameters()).device
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    valid = None
    if int(lengths.min()) < tokens.shape[1]:
        valid = (torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)).to(next(model.parameters()))
    logits, state = model.run({name: tokens.to(device)}, valid)
    last = logits[torch.arange(len(prompts)), lengths - 1, 0]
    return last.float().log_softmax(-1), state


def advance(
    model: MANN, tokens: Tensor, state: RunState, alive: Tensor | None = None
) -> tuple[Tensor, RunState]:
    """One more token each, ``int64[B]``; the state of rows that are not ``alive`` (``bool[B]``) is held."""
    valid = None if alive is None else alive.unsqueeze(1).to(next(model.parameters()).dtype)
    logits, state = model.run({_channel(model): tokens.unsqueeze(1)}, valid, state=state)
    return logits[:, 0, 0].float().log_softmax(-1), state


def greedy(
    model: MANN,
    prompts: Sequence[Sequence[int]],
    end: int,
    limits: Sequence[int],
    *,
    length_penalty: float = 1.0,
) -> list[Continuation]:
    """The likeliest token at each step. Serves any memory: every state is used once."""
    scores, state = read(model, prompts)
    most = torch.tensor(limits, device=scores.device)
    alive = torch.ones(len(prompts), dtype=torch.bool, device=scores.device)
    total, count = scores.new_zeros(len(prompts)), torch.zeros_like(most)
    said: list[Tensor] = []
    while True:
        best, token = scores.max(-1)
        total, count = total + best * alive, count + alive
        said.append(torch.where(alive, token, end))
        alive = alive & (token != end) & (count < most)
        if not alive.any():
            break
        scores, state = advance(model, token, state, None if alive.all() else alive)
    columns = torch.stack(said, 1).tolist()
    totals = (total / count**length_penalty).tolist()
    found = []
    for row, spoken, score in zip(columns, count.tolist(), totals, strict=True):
        ended = row[spoken - 1] == end
        found.append(Continuation(row[: spoken - ended], score, ended))
    return found


@dataclass
class _Search:
    """What is found for one prompt."""

    limit: int
    finished: list[Continuation] = field(default_factory=list)
    open: list[Continuation] = field(default_factory=list)

    def goes_on(self, best: float, beam: int) -> bool:
        """Whether to look further, where ``best`` is the score of the best beginning."""
        if best == -float("inf"):
            return False
        return len(self.finished) < beam or best > self.best().score

    def best(self) -> Continuation:
        # Nothing at all, where the model says what is not a number.
        found = self.finished or self.open or [Continuation([], -float("inf"), False)]
        return max(found, key=lambda one: one.score)


def beam_search(
    model: MANN,
    prompts: Sequence[Sequence[int]],
    end: int,
    limits: Sequence[int],
    *,
    beam: int,
    length_penalty: float = 1.0,
) -> list[Continuation]:
    """Keep the ``beam`` likeliest beginnings at each step.

    A continuation is finished when its end is among the ``beam`` best next tokens of its prompt. The search
    stops at the limit, or when that many are finished and no beginning has a better score than the best of
    them. A score is the log-probability over ``length ** length_penalty`` (the end counts). With ``beam=1``
    this is :func:`greedy`.

    Raises:
        ConfigError: the memory changes its state in place.
    """
    searches = [_Search(limit) for limit in limits]
    active = list(range(len(prompts)))
    scores, state = read(model, prompts)
    totals = scores.new_zeros(len(prompts), 1)  # of each beginning, [prompts, beginnings]
    said = torch.zeros(len(prompts), 1, 0, dtype=torch.int64, device=scores.device)
    length = 0
    while active:
        length += 1
        vocabulary, kept = scores.shape[-1], totals.shape[1]
        sums = (totals.unsqueeze(-1) + scores.view(len(active), kept, vocabulary)).flatten(1)
        values, places = sums.topk(min(2 * beam, sums.shape[1]), dim=1)
        parents, tokens = places // vocabulary, places % vocabulary
        longer = torch.cat([_of(said, parents), tokens.unsqueeze(-1)], dim=-1)
        ends = tokens == end
        share = 1 / length**length_penalty
        _finish(searches, active, values * share, longer, ends, beam)
        totals, rank = values.masked_fill(ends, -torch.inf).topk(min(beam, values.shape[1]), dim=1)
        said, parents, tokens = _of(longer, rank), parents.gather(1, rank), tokens.gather(1, rank)
        going = []
        for row, number in enumerate(active):
            search = searches[number]
            if length >= search.limit:
                search.open = _open(said[row], totals[row] * share)
            elif search.goes_on(float(totals[row, 0] * share), beam):
                going.append(row)
        if not going:
            break
        chosen = torch.tensor(going, device=scores.device)
        rows = (chosen.unsqueeze(1) * kept + parents[chosen]).flatten()
        totals, said, active = totals[chosen], said[chosen], [active[row] for row in going]
        scores, state = advance(model, tokens[chosen].flatten(), model.reorder(state, rows))
    return [search.best() for search in searches]


def _of(said: Tensor, which: Tensor) -> Tensor:
    """``said[A, K, L]`` and ``which[A, M]`` in [0, K) to ``[A, M, L]``."""
    return said.gather(1, which.unsqueeze(-1).expand(-1, -1, said.shape[-1]))


def _finish(
    searches: list[_Search], active: list[int], values: Tensor, longer: Tensor, ends: Tensor, beam: int
) -> None:
    here = (ends & (values > -torch.inf))[:, :beam]
    for row, rank in here.nonzero().tolist():
        found = Continuation(longer[row, rank, :-1].tolist(), float(values[row, rank]), True)
        searches[active[row]].finished.append(found)


def _open(said: Tensor, values: Tensor) -> list[Continuation]:
    pairs = zip(said.tolist(), values.tolist(), strict=True)
    return [Continuation(tokens, value, False) for tokens, value in pairs if value > -float("inf")]
