"""What the input still knows goes past the networks: bands of it are let through to the restored picture."""

from __future__ import annotations

from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.models.offload import at_work


def bands(images: Tensor, levels: int) -> list[Tensor]:
    """A picture (B,C,H,W) as ``levels`` + 1 pictures that add up to it, finest first: differences of pooled pictures.

    The Laplacian pyramid (Burt and Adelson, 1983), at full size. Sides are multiples of ``2 ** levels``.
    """
    found, above, pooled = [], images, images
    for _ in range(levels):
        pooled = F.avg_pool2d(pooled, 2)
        below = F.interpolate(pooled, size=images.shape[-2:], mode="bilinear", align_corners=False)
        found.append(above - below)
        above = below
    return [*found, above]


class InputSkip(ModelMixin, ConfigMixin):
    """``restored + sum_k w_k band_k(LQ - restored)``; a small network tells the weights ``w_k`` in [0,1] at each place.

    An encoder that is squeezed to a few hundred numbers a square, and a decoder that draws, move what was right in the
    input: forms and tones that a mild blur leaves as they were. How much of which band is still right depends on the
    blur and noise, which the network sees.

    Args:
        levels: of the pyramid; the coarsest band holds what is wider than ``2 ** levels`` px.
        width: of the network.
        first: the weights at initialisation, finest first; ``levels`` + 1 of them.
    """

    @register_to_config
    def __init__(self, levels: int = 4, width: int = 32, first: tuple[float, ...] = (0.02, 0.1, 0.4, 0.6, 0.6)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(96, width, 3, padding=1),
            nn.GELU(approximate="tanh"),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(approximate="tanh"),
        )
        self.whole = nn.Linear(4 * width, 2 * width)
        self.head = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.GELU(approximate="tanh"),
            nn.Conv2d(2 * width, levels + 1, 1),
        )
        last = cast(nn.Conv2d, self.head[-1])
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.tensor(first).logit())

    def weights(self, restored: Tensor, lq: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in [-1,1] -> the weights of the bands (B,levels+1,H/8,W/8)."""
        features = self.stem(F.pixel_unshuffle(torch.cat([restored, lq - restored], dim=1), 4))
        spread = features.var(dim=(2, 3), unbiased=False).add(1e-6).sqrt()
        whole = self.whole(torch.cat([features.mean(dim=(2, 3)), spread], dim=1))
        return cast(Tensor, self.head(features + whole[:, :, None, None])).sigmoid()

    def forward(self, restored: Tensor, lq: Tensor) -> Tensor:
        """The decoder's pictures and the LQ ones, both (B,3,H,W) in [-1,1] -> pictures of the same shape."""
        weights = F.interpolate(
            self.weights(restored, lq), size=lq.shape[-2:], mode="bilinear", align_corners=False
        ).unsqueeze(2)
        parts = bands(lq - restored, self.config.levels)
        return restored + sum(weights[:, k] * part for k, part in enumerate(parts))


def let_through(skip: InputSkip, restored: Tensor, lq: Tensor) -> Tensor:
    """`InputSkip` on pictures (B,3,H,W) in [-1,1], in its own precision and on its own device; float32."""
    with at_work(skip):
        return cast(Tensor, skip(restored.to(skip.dtype), lq.to(skip.dtype))).float()
