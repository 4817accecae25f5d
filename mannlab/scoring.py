"""Scores that tasks share: masked losses in nats, metrics with their unit in the name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mannlab.contracts import Batch, Score
from mannlab.errors import require


def bit_score(logits: Tensor, batch: Batch) -> Score:
    """Cross-entropy of independent bits, summed over the scored steps of a sequence.

    Args:
        logits: ``[B, T, size]``.
        batch: ``targets[B, T, size]`` of zeros and ones, ``scored[B, T]``.

    Returns:
        Loss in nats per sequence; metrics ``cost_bits_per_sequence`` (the same in bits) and
        ``bit_errors_per_sequence`` (bits on the wrong side of one half).
    """
    # Before anything is counted: in bfloat16 there is no 257.
    logits, asked = logits.float(), batch.scored.bool().unsqueeze(-1)
    sequences = logits.new_tensor(float(len(batch)))
    costs = binary_cross_entropy_with_logits(logits, batch.targets.float(), reduction="none")
    total = torch.where(asked, costs, 0.0).sum()
    with torch.no_grad():
        wrong = ((logits > 0) != (batch.targets > 0.5)) & asked
    return Score(
        total / sequences,
        {
            "bit_errors_per_sequence": (wrong.sum(), sequences),
            "cost_bits_per_sequence": (total.detach() / math.log(2), sequences),
        },
    )


def answered(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits and targets of the S scored steps, ``[S, groups, count]`` and ``int64[S, groups]``.

    Args:
        logits: of all steps, ``[B, T, groups, count]``, or of the scored ones alone (``Task.asks_few``).
        batch: ``targets[B, T, groups]`` of classes, ``scored[B, T]``.
    """
    here = batch.scored.bool()
    return (logits if logits.dim() == 3 else logits[here]).float(), batch.targets[here]


def class_costs(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of each step in nats, ``float[B, T]``, summed over its symbols; 0 where none is asked.

    Args:
        logits: ``[B, T, groups, count]``.
        batch: ``targets[B, T, groups]`` of classes, ``scored[B, T]``.
    """
    costs = cross_entropy(logits.float().flatten(0, 2), batch.targets.flatten(), reduction="none")
    return torch.where(batch.scored > 0, costs.view(batch.targets.shape).sum(-1), 0.0)


def require_sacrebleu(key: str) -> None:
    """Raise ConfigError naming ``key`` unless ``sacrebleu`` is installed."""
    require(find_spec("sacrebleu") is not None, f"{key} needs 'sacrebleu'.", "pip install 'mannlab[text]'.")


def text_scores(
    answers: Sequence[str], references: Sequence[str], lowercase: bool = False
) -> tuple[dict[str, float], dict[str, str]]:
    """Corpus BLEU and chrF as sacreBLEU computes them (Post 2018, arXiv 1804.08771), and exact matches.

    Args:
        answers: detokenised text.
        references: one for each.
        lowercase: BLEU and chrF do not look at case.

    Returns:
        Metrics, and the signatures of BLEU and chrF, without which they cannot be compared. BLEU is left out
        where no reference has four words: it would be 0 whatever the answers.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF(lowercase=lowercase)
    metrics = {
        "chrf_points": float(chrf.corpus_score(answers, [references]).score),
        "exact_match_percent": 100 * sum(map(str.__eq__, answers, references)) / max(1, len(references)),
    }
    signatures = {"chrf": str(chrf.get_signature())}
    if any(len(reference.split()) >= 4 for reference in references):
        bleu = BLEU(lowercase=lowercase)
        metrics["bleu_points"] = float(bleu.corpus_score(answers, [references]).score)
        signatures["bleu"] = str(bleu.get_signature())
    return metrics, signatures
