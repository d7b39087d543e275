"""The compact discrete tokenizer: a face image to a small grid of codes that carry layout and identity.

It plays the part of TA-Tok (arXiv 2506.18898), whose codes are aligned with meaning by a large vision
encoder. At this scale the meaning comes from two teachers that ship with a small package: a face-recognition
embedding and the five facial points, both regressed from the codes, beside a low-resolution reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.models.layers import ResidualBlock, TransformerBlock, initialise_
from prefrestore.models.semantic.quantizer import Quantized, SimVQ


class Description(NamedTuple):
    """What codes say of a face. low_resolution: (B,3,S,S) about [-1,1]; identity: (B,E) unit vectors;
    points: (B,P,2), x and y as fractions of the image side."""

    low_resolution: Tensor
    identity: Tensor
    points: Tensor


class SemanticTokenizer(ModelMixin, ConfigMixin):
    """Image (B,3,H,W) in [-1,1] -> (B,N) indices into a codebook, row by row.

    The grid has ``image_size / patch_size / 2^(stages - 1)`` positions a side.

    Args:
        image_size: side of the images, in pixels.
        patch_size: side of the pixel-unshuffle patches of the stem.
        widths: channels of the stages, finest first; between stages the resolution halves.
        blocks: residual blocks of each stage.
        attention_layers: transformer blocks on the grid, in the encoder and again in the decoder.
        attention_heads: their heads.
        codebook_size, code_dim: see `SimVQ`.
        low_resolution: side of the reconstruction, a multiple of twice the grid's.
        decoder_width: channels of the reconstruction's last stage.
        identity_dim: dimension of the face-recognition embedding.
        num_points: facial points.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 3,
        patch_size: int = 8,
        widths: Sequence[int] = (64, 160, 256),
        blocks: Sequence[int] = (1, 2, 1),
        attention_layers: int = 2,
        attention_heads: int = 4,
        codebook_size: int = 2048,
        code_dim: int = 32,
        low_resolution: int = 64,
        decoder_width: int = 96,
        identity_dim: int = 128,
        num_points: int = 5,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise InvalidInputError("the semantic tokenizer needs as many block counts as stage widths")
        reduction = patch_size * 2 ** (len(widths) - 1)
        if image_size % reduction:
            raise InvalidInputError(f"an image of {image_size} px cannot be reduced by {reduction} evenly")
        self.grid = image_size // reduction
        if low_resolution % (2 * self.grid):
            raise InvalidInputError(f"a reconstruction of {low_resolution} px does not fit a grid of {self.grid}")
        self.num_tokens = self.grid**2
        width = widths[-1]

        self.stem = nn.Conv2d(in_channels * patch_size**2, widths[0], 1)
        stages: list[nn.Module] = []
        for index, (channels, depth) in enumerate(zip(widths, blocks, strict=True)):
            stages += [ResidualBlock(channels) for _ in range(depth)]
            if index + 1 < len(widths):
                stages.append(nn.Conv2d(channels, widths[index + 1], 3, stride=2, padding=1))
        self.stages = nn.Sequential(*stages)
        self.encoder_position = nn.Parameter(torch.zeros(1, self.num_tokens, width))
        self.encoder_blocks = nn.Sequential(
            *(TransformerBlock(width, attention_heads) for _ in range(attention_layers))
        )
        self.encoder_norm = nn.LayerNorm(width)
        self.in_linear = nn.Linear(width, code_dim)
        self.regularizer = SimVQ(codebook_size, code_dim)

        self.out_linear = nn.Linear(code_dim, width)
        self.decoder_position = nn.Parameter(torch.zeros(1, self.num_tokens, width))
        self.decoder_blocks = nn.Sequential(
            *(TransformerBlock(width, attention_heads) for _ in range(attention_layers))
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.decoder_in = nn.Linear(width, 4 * decoder_width)
        self.decoder_stage = ResidualBlock(decoder_width)
        self.upsample = low_resolution // (2 * self.grid)
        self.decoder_out = nn.Conv2d(decoder_width, in_channels * self.upsample**2, 3, padding=1)
        self.head = nn.Sequential(
            nn.Linear(self.num_tokens * code_dim, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, identity_dim + 2 * num_points),
        )

    def initialise(self, generator: torch.Generator) -> SemanticTokenizer:
        """Draw all weights anew from ``generator``; returns self."""
        initialise_(self, generator)
        with torch.no_grad():
            # The reconstruction starts grey and the points in the middle, not at the size of random features.
            self.decoder_out.weight.mul_(0.1)
            last = self.head[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> features (B,N,C) before quantisation.

        Raises InvalidInputError for another size than the configuration's.
        """
        config = self.config
        expected = (config.in_channels, config.image_size, config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise InvalidInputError(f"the semantic tokenizer reads B,{expected}, not {tuple(images.shape)}")
        x = F.pixel_unshuffle(images, config.patch_size).contiguous(memory_format=torch.channels_last)
        x = self.stages(self.stem(x)).flatten(2).transpose(1, 2)
        x = self.encoder_blocks(x + self.encoder_position)
        return self.in_linear(self.encoder_norm(x))

    def quantize(self, images: Tensor) -> Quantized:
        """Images (B,3,H,W) in [-1,1] -> codes, indices and the quantiser's losses (see `Quantized`)."""
        return self.regularizer(self.features(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> indices (B,N) int64, row by row from the top left."""
        return self.regularizer.nearest(self.features(images.to(self.dtype)))

    def describe(self, codes: Tensor) -> Description:
        """Codes (B,N,C), unit vectors -> low-resolution face, identity, points."""
        config = self.config
        # A unit vector's entries are small: bring them to unit variance.
        codes = codes.to(self.out_linear.weight.dtype) * config.code_dim**0.5
        x = self.decoder_blocks(self.out_linear(codes) + self.decoder_position)
        x = self.decoder_in(self.decoder_norm(x)).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        x = self.decoder_stage(F.pixel_shuffle(x, 2))
        low = F.pixel_shuffle(self.decoder_out(x), self.upsample)
        answer = self.head(codes.flatten(1)).float()
        identity, points = answer.split((config.identity_dim, 2 * config.num_points), dim=1)
        return Description(
            low_resolution=low.float(),
            identity=F.normalize(identity, dim=1),
            points=points.unflatten(1, (config.num_points, 2)) + 0.5,
        )

    def decode(self, indices: Tensor) -> Description:
        """Indices (B,N) int64 -> what these codes say of the face."""
        return self.describe(F.embedding(indices, self.regularizer.codebook()))

    def forward(self, images: Tensor) -> tuple[Quantized, Description]:
        """Images (B,3,H,W) in [-1,1] -> codes and what they say, with gradients through the quantiser."""
        quantized = self.quantize(images)
        return quantized, self.describe(quantized.codes)

    def losses(self, images: Tensor, identity: Tensor, points: Tensor) -> dict[str, Tensor]:
        """The unweighted terms of training, scalars.

        Args:
            images: (B,3,H,W) in [-1,1]; the reconstruction's target is their own reduction.
            identity: (B,E) unit vectors of a face-recognition network, of the sharp faces.
            points: (B,P,2) facial points as fractions of the side, NaN where unknown.

        Returns:
            ``pixel`` (L1 at low resolution), ``identity`` (1 - cosine), ``points`` (L1, fractions of the
            side), ``commitment``, ``entropy_gap``.
        """
        quantized, description = self(images)
        target = F.interpolate(images.float(), size=description.low_resolution.shape[-2:], mode="area")
        known = ~points.isnan()
        # Unknown points are replaced before the difference: a NaN times zero would still poison the gradient.
        missed = (description.points - torch.where(known, points, 0)).abs() * known
        return {
            "pixel": F.l1_loss(description.low_resolution, target),
            "identity": (1 - (description.identity * identity).sum(1)).mean(),
            "points": missed.sum() / known.sum().clamp_min(1),
            "commitment": quantized.commitment,
            "entropy_gap": quantized.entropy_gap,
        }
