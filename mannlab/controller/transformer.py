"""Transformer controller: whole sequences in parallel, or one step at a time with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mannlab.contracts import Controller
from mannlab.errors import at_least_one, require
from mannlab.registry import register

ROTARY_BASE = 10_000.0


class TransformerState(NamedTuple):
    """What earlier steps left.

    Attributes:
        keys: ``[B, layers, heads, S, D]``, already rotated.
        values: ``[B, layers, heads, S, D]``.
        real: ``[B, S]``, 1 for cache entries of real steps, 0 for those of padding.
        before: ``float32[B]``, real steps that have left the cache.
    """

    keys: Tensor
    values: Tensor
    real: Tensor
    before: Tensor


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): ``x[B, heads, L, D]``, ``positions[B, L]``."""
    half = x.shape[-1] // 2
    # Half precision cannot tell a position of some hundreds from the next.
    exact = torch.promote_types(x.dtype, torch.float32)
    rates = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=exact) / half)
    angles = (positions.to(exact)[..., None] * rates).unsqueeze(1)
    first, second = x.split(half, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Block(nn.Module):
    """One pre-norm block: attention, then ``feedforward``, each added to the stream."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.feedforward: nn.Module = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.drop = nn.Dropout(dropout)
        self.memory: nn.Module | None = None  # what takes the place of the feed-forward part

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        cache: tuple[Tensor, Tensor],
        mask: Tensor,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``x[B, L, width]`` and the cache before it, to the next ``x`` and the cache with it.

        ``mask[B, 1, L, S + L]`` is True where a query may look.
        """
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        )
        keys = torch.cat([cache[0], rotate(k, positions)], dim=2)
        values = torch.cat([cache[1], v], dim=2)
        dropped = self.dropout if self.training else 0.0
        seen = scaled_dot_product_attention(rotate(q, positions), keys, values, mask, dropped)
        x = x + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        normed = self.norm_feedforward(x)
        added = self.feedforward(normed) if self.memory is None else self.memory(normed, valid)
        return x + self.drop(added), keys, values


@register("controller", "transformer")
class Transformer(Controller[TransformerState]):
    """Causal transformer, pre-norm, with rotary positions.

    Runs whole sequences in parallel, and steps with a key-value cache so that it can drive a memory;
    the two agree. Entries of padded steps stay in the cache, marked so that nothing looks at them.

    Args:
        input_size: width of what comes in at each step.
        width: width of the residual stream.
        layers: number of blocks.
        heads: attention heads.
        feedforward: hidden width of each block's feed-forward part.
        dropout: share of activations dropped in training.
        context: how many steps a step sees, itself included; what is older leaves the state. null: all.
        memory_blocks: blocks, counted from 0, whose feed-forward part is replaced by the memory, as in Lample
            et al. 2019; the memory must be one that carries no state, such as ``product_key``. Empty: the
            memory reads what the last block says.
        segment: a memory with a state is read and written once per so many steps, by what is said at the last
            of them; the steps of a segment run in parallel and attend to each other and to the context.

    Raises:
        ConfigError: a size below 1, or a width that the heads cannot share in even parts.
    """

    def __init__(
        self,
        input_size: int,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 512,
        dropout: float = 0.0,
        context: int | None = 512,
        memory_blocks: list[int] | None = None,
        segment: int = 1,
    ) -> None:
        super().__init__()
        at_least_one(
            "controller", width=width, layers=layers, heads=heads, feedforward=feedforward, segment=segment
        )
        require(
            width % (2 * heads) == 0,
            f"controller.width: {width} is not allowed with controller.heads={heads}.",
            f"It must be a multiple of {2 * heads}: each head gets an even share, for rotary positions.",
        )
        require(0 <= dropout < 1, f"controller.dropout: {dropout} is not allowed.", "It must be in [0, 1).")
        require(
            context is None or context >= 1,
            f"controller.context: {context} is not allowed.",
            "It must be at least 1, or null.",
        )
        self.context, self.segment = context, segment
        self.output_size, self.heads, self.head_width = width, heads, width // heads
        self.project = nn.Linear(input_size, width)
        self.blocks = nn.ModuleList(Block(width, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.memory_blocks = sorted(set(memory_blocks or []))
        for block in self.memory_blocks:
            require(
                0 <= block < layers,
                f"controller.memory_blocks: {block} is not allowed with controller.layers={layers}.",
                f"Blocks are counted from 0, so the last one is {layers - 1}.",
            )

    def host(self, make: Callable[[int], nn.Module]) -> None:
        for number in self.memory_blocks:
            block = self.blocks[number]
            assert isinstance(block, Block)
            block.feedforward, block.memory = nn.Identity(), make(self.output_size)

    def progress(self, state: TransformerState) -> Tensor:
        return state.before + state.real.float().sum(1)

    def init_state(self, batch: int) -> TransformerState:
        like = self.norm.weight
        empty = like.new_zeros(batch, len(self.blocks), self.heads, 0, self.head_width)
        return TransformerState(empty, empty, like.new_zeros(batch, 0), like.new_zeros(batch).float())

    def forward(self, x: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        return self.step(x, state)

    def step(
        self, x: Tensor, state: TransformerState, valid: Tensor | None = None
    ) -> tuple[Tensor, TransformerState]:
        h, state = self.sequence(x.unsqueeze(1), state, None if valid is None else valid.unsqueeze(1))
        return h.squeeze(1), state

    def sequence(
        self, x: Tensor, state: TransformerState, valid: Tensor | None = None
    ) -> tuple[Tensor, TransformerState]:
        batch, steps = x.shape[:2]
        here = state.real.new_ones(batch, steps) if valid is None else valid.to(state.real)
        real = torch.cat([state.real, here], dim=1)
        places = real.float().cumsum(1) + (state.before.unsqueeze(1) - 1)
        positions = places[:, -steps:]
        past = state.real.shape[1]
        causal = torch.ones(steps, past + steps, dtype=torch.bool, device=x.device).tril(past)
        own = torch.eye(steps, past + steps, dtype=torch.bool, device=x.device)
        own = own.roll(past, dims=1) if past else own
        # A padded step may look at itself, or its softmax would be over nothing.
        seen = causal & real.bool().unsqueeze(1)
        if self.context is not None and past + steps > self.context:
            seen = seen & (positions.unsqueeze(2) - places.unsqueeze(1) < self.context)
        mask = seen | own
        h = self.project(x)
        all_keys, all_values = [], []
        for layer, block in enumerate(self.blocks):
            cache = (state.keys[:, layer], state.values[:, layer])
            h, keys, values = block(h, positions, cache, mask.unsqueeze(1), valid)
            all_keys.append(keys)
            all_values.append(values)
        keys, values, before = torch.stack(all_keys, 1), torch.stack(all_values, 1), state.before
        most = None if self.context is None else self.context - 1
        if most is not None and past + steps > most:
            gone = past + steps - most
            if bool((real == 0).any()):
                # Padding leaves first, or it would take the place of real steps.
                order = real.argsort(dim=1, stable=True)
                real = real.gather(1, order)
                whole = order[:, None, None, :, None].expand(keys.shape)
                keys, values = keys.gather(3, whole), values.gather(3, whole)
            before = before + real[:, :gone].float().sum(1)
            keys, values, real = keys[:, :, :, gone:], values[:, :, :, gone:], real[:, gone:]
        return self.norm(h), TransformerState(keys, values, real, before)
