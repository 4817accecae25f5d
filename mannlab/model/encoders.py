"""Layers that turn what comes in into one vector a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mannlab.contracts import Bag, Bits, Classes, Image, StreamSpec, Token, Vector
from mannlab.errors import ConfigError, choices, require
from mannlab.kernels.placed import placed_sum

TOKEN_WIDTH = 64
CONV_CHANNELS = 32
CONV_OUTPUT = 64
CHUNK = 3 * 2**14  # pixels that a convolutional net takes in at once on a CPU


class BagEncoder(nn.Module):
    """The sum of the vectors of a step's symbols: ``int64[..., J]``, -1 for none, to ``[..., width]``.

    With positions, component k of d of the symbol at place j of J is weighted by
    ``(1 - j / J) - (k / d) (1 - 2 j / J)`` (Sukhbaatar et al. 2015, section 4.1), places and components
    counted from 1; J is the number of symbols of the step. Several embeddings lie side by side, each with its
    own d components.
    """

    def __init__(self, spec: Bag) -> None:
        super().__init__()
        self.positions, self.output_size = spec.positions, spec.embeddings * spec.width
        self.weight = nn.Parameter(torch.randn(spec.vocabulary, self.output_size) * spec.deviation)
        parts = (torch.arange(1, spec.width + 1) / spec.width).repeat(spec.embeddings)
        self.register_buffer("parts", parts, persistent=False)
        self.parts: Tensor

    def forward(self, x: Tensor) -> Tensor:
        sums = placed_sum(self.weight, x.flatten(0, -2), self.parts if self.positions else None)
        return sums.unflatten(0, x.shape[:-1])


class FeatureNorm(nn.Module):
    """Each feature to mean 0 and variance 1: ``[B, F]`` to ``[B, F]``.

    In training over the batch, as batch norm does, since features of a net that learns move faster than any
    mean of the past follows (behind one, a memory addressed by cosine stays blind); elsewhere, and for a
    single sample, by the mean of the batches so far, the earlier the less.
    """

    mean: Tensor
    square: Tensor
    share: Tensor

    def __init__(self, features: int, momentum: float = 0.01, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("square", torch.zeros(features))
        self.register_buffer("share", torch.zeros(()))  # how much of the mean is batches, the rest zeros

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 1:
            seen = x.to(self.mean)
            mean, variance = seen.mean(0), seen.var(0, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.square.lerp_(seen.square().mean(0), self.momentum)
                self.share.lerp_(torch.ones_like(self.share), self.momentum)
        else:
            # Before the first batch: as it comes.
            fresh = self.share == 0
            share = self.share.where(~fresh, 1)
            mean = self.mean / share
            variance = (self.square / share - mean.square()).where(~fresh, 1).clamp_min(0)
        return ((x - mean) * (variance + self.eps).rsqrt()).to(x.dtype)


class ConvEncoder(nn.Module):
    """A small convolutional net: ``[B, C, H, W]`` to ``[B, 64]``.

    Blocks of 3×3 convolution, group norm, 2×2 max pooling and ReLU, as many as the picture allows and at most
    three, then a linear layer, normalised: pictures of strokes share most of their pixels, and unless their
    features are centred, any two of them point the same way (cosine 0.91), which leaves nothing to a memory
    that is addressed by cosine.

    On a CPU a few pictures go through all blocks before the next do: what lies between two layers then stays
    in the cache, and in memory that the process has had before.
    """

    def __init__(self, spec: Image) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, height, width = spec.channels, spec.height, spec.width
        for _ in range(3):
            if min(height, width) < 2:
                break
            layers += [
                nn.Conv2d(channels, CONV_CHANNELS, 3, padding=1, bias=False),
                nn.GroupNorm(4, CONV_CHANNELS),
                nn.MaxPool2d(2),
                nn.ReLU(),  # the same on either side of the pooling, and a quarter of the work here
            ]
            channels, height, width = CONV_CHANNELS, height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(channels * height * width, CONV_OUTPUT), FeatureNorm(CONV_OUTPUT)]
        # Channels last: group norm and pooling run over neighbours in memory.
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.output_size = CONV_OUTPUT
        self.chunk = max(1, CHUNK // (spec.height * spec.width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        each, norm = self.layers[:-1], self.layers[-1]
        chunks = x.split(self.chunk) if x.device.type == "cpu" else [x]
        return norm(torch.cat([each(chunk) for chunk in chunks]))


class FlatEncoder(nn.Module):
    """The pixels as a vector."""

    def __init__(self, spec: Image) -> None:
        super().__init__()
        self.output_size = spec.channels * spec.height * spec.width

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


IMAGE_ENCODERS: dict[str, type[ConvEncoder] | type[FlatEncoder]] = {"conv": ConvEncoder, "flat": FlatEncoder}


def each_picture(encoder: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """``x[B, T, C, H, W]`` through the encoder, ``[B, T, F]``; 0 where ``valid[B, T]`` is.

    A step that is padding has no picture: none is encoded, nor normalised with.
    """
    if valid is None:
        return encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    real = valid.flatten().nonzero().squeeze(1)
    features = encoder(x.flatten(0, 1)[real])
    return (
        features.new_zeros(valid.numel(), features.shape[1])
        .index_copy(0, real, features)
        .unflatten(0, valid.shape)
    )


class StreamEncoder(nn.Module):
    """All channels of a stream, encoded and laid side by side: to ``[B, T, output_size]``.

    Args:
        spec: the channels.
        token_width: numbers for each symbol.
        tied: embeddings are also the weights of the last layer: they start small enough for that, and what
            comes in is scaled back (Vaswani et al. 2017, section 3.4).

    Raises:
        ConfigError: an unknown encoder, or a width below 1.
    """

    def __init__(self, spec: StreamSpec, token_width: int = TOKEN_WIDTH, tied: bool = False) -> None:
        super().__init__()
        require(
            token_width >= 1,
            f"model.embedding_width: {token_width} is not allowed.",
            "It must be at least 1.",
        )
        self.scale = math.sqrt(token_width) if tied else 1.0
        self.channels = dict(spec.inputs)
        self.layers = nn.ModuleDict()
        self.output_size = 0
        for name, channel in self.channels.items():
            if isinstance(channel, Vector):
                self.output_size += channel.size
            elif isinstance(channel, Token):
                embedding = nn.Embedding(channel.vocabulary, token_width)
                if tied:
                    nn.init.normal_(embedding.weight, std=1 / self.scale)
                self.layers[name] = embedding
                self.output_size += token_width
            elif isinstance(channel, Bag):
                words = BagEncoder(channel)
                self.layers[name] = words
                self.output_size += words.output_size
            else:
                if channel.encoder not in IMAGE_ENCODERS:
                    hint = choices(channel.encoder, IMAGE_ENCODERS, "encoders")
                    raise ConfigError(f"There is no image encoder '{channel.encoder}'.", hint)
                encoder = IMAGE_ENCODERS[channel.encoder](channel)
                self.layers[name] = encoder
                self.output_size += encoder.output_size

    def forward(self, inputs: dict[str, Tensor], valid: Tensor | None = None) -> Tensor:
        parts = []
        for name, channel in self.channels.items():
            x = inputs[name]
            if isinstance(channel, Image):
                x = each_picture(self.layers[name], x, valid)
            elif isinstance(channel, Token):
                x = self.layers[name](x)
                x = x if self.scale == 1 else x * self.scale
            elif isinstance(channel, Bag):
                x = self.layers[name](x)
            parts.append(x)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def shared_channel(self, target: Bits | Classes) -> str | None:
        """The name of the one channel, if its symbols are those that ``target`` asks for."""
        (name, channel), *others = self.channels.items()
        if others or not isinstance(channel, Token) or not isinstance(target, Classes):
            return None
        return name if target.groups == 1 and target.count == channel.vocabulary else None

    def tied_to(self, target: Bits | Classes) -> nn.Parameter:
        """The embedding of the symbols that ``target`` asks for, ``[count, width]``.

        Raises:
            ConfigError: what comes in is not one channel of the same symbols.
        """
        name = self.shared_channel(target)
        if name is None:
            raise ConfigError(
                "model.tied_embeddings: true is not allowed with this task.",
                "What comes in and what is asked must be symbols of one vocabulary, as in language_modelling "
                "and translation. Use model.tied_embeddings=false.",
            )
        weight = self.layers[name].weight
        assert isinstance(weight, nn.Parameter)
        return weight
