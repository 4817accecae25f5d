"""What the gated recurrent controllers share: one module's weights, driven by step or by sequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


def layer_weights(rnn: nn.RNNBase) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Input weights, recurrent weights and both biases of each layer."""
    return [tuple(getattr(rnn, name) for name in names) for names in rnn._all_weights]


def first_state(layers: int, hidden: int) -> nn.Parameter:
    """Learned bias values that the state is reset to before each sequence (NTM, section 3)."""
    return nn.Parameter(torch.zeros(layers, hidden))


@cache
def lacks_bfloat16() -> bool:
    """Whether torch's LSTM for CPUs fails in bfloat16: it takes oneDNN's without asking if there is one."""
    return torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def run_padded(
    valid: Tensor,
    x: Tensor,
    run: Callable[[nn.utils.rnn.PackedSequence], tuple[nn.utils.rnn.PackedSequence, object]],
) -> tuple[Tensor, object]:
    """Run over sequences padded at their ends, so that the last state is that of the last real step."""
    lengths = valid.sum(1).long().cpu()
    # A packed sequence cannot be empty: a row without a real step runs one, and the caller undoes it.
    packed = nn.utils.rnn.pack_padded_sequence(
        x, lengths.clamp_min(1), batch_first=True, enforce_sorted=False
    )
    out, state = run(packed)
    padded, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
    return padded, state
