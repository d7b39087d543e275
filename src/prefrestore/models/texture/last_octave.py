"""From 256 to 512 px: the finest octave of a restored face, and what a good input still knows of every other."""

from __future__ import annotations

from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.models.offload import at_work
from prefrestore.models.texture.input_skip import InputSkip, bands, let_through

FACTOR = 2
"""How much larger its pictures are than the core's."""
_PATCH = 4  # side of the squares of the large picture that one place of the network sees


class LastOctave(ModelMixin, ConfigMixin):
    """``up(restored) + drawn + sum_k w_k band_k(LQ - up(restored))``, at twice the size of ``restored``.

    A U-shaped network sees the restored face and, at full size, the degraded one; it draws what is missing and tells
    the weights ``w_k`` of the input's bands in [0,1] at each place, as `InputSkip` does at the core's size. So a face
    that was nearly clean comes back as it was, a blurred one gets new detail, and noise stays out.

    The core (latents, language model, flow) stays as small as it is: an autoencoder of 512 px with the same number of
    tokens would be another core.

    Args:
        widths: channels at 1/4, 1/8 and 1/16 of the large picture's side.
        blocks: residual blocks at each of them; the finer two have as many on the way back.
        levels: of the pyramid of bands; see `bands`.
        first: the weights at initialisation, finest first; ``levels`` + 1 of them.
        coarse: how much is left of what it draws below its own octave, where the core has decided already.
    """

    @register_to_config
    def __init__(
        self,
        widths: tuple[int, int, int] = (48, 96, 160),
        blocks: tuple[int, int, int] = (1, 2, 2),
        levels: int = 4,
        first: tuple[float, ...] = (0.3, 0.4, 0.5, 0.5, 0.5),
        coarse: float = 1.0,
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        pixels = 3 * _PATCH**2
        self.stem = nn.Sequential(nn.Conv2d(2 * pixels, fine, 3, padding=1), *_residuals(fine, blocks[0]))
        self.down = nn.Sequential(nn.Conv2d(fine, middle, 2, stride=2), *_residuals(middle, blocks[1]))
        self.bottom = nn.Sequential(nn.Conv2d(middle, coarse, 2, stride=2), *_residuals(coarse, blocks[2]))
        self.raise_bottom = nn.ConvTranspose2d(coarse, middle, 2, stride=2)
        self.up = nn.Sequential(*_residuals(middle, blocks[1]))
        self.raise_middle = nn.ConvTranspose2d(middle, fine, 2, stride=2)
        self.last = nn.Sequential(*_residuals(fine, blocks[0]))
        self.draw = nn.Conv2d(fine, pixels, 3, padding=1)
        self.gates = nn.Conv2d(middle, levels + 1, 1)
        for head in (self.draw, self.gates):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(cast(Tensor, head.bias))
        self.gates.bias = nn.Parameter(torch.tensor(first).logit())

    def forward(self, restored: Tensor, lq: Tensor) -> Tensor:
        """Restored faces (B,3,h,w) and the degraded ones (B,3,2h,2w), in [-1,1] -> faces of the latter shape.

        Sides of the latter are multiples of 16; the result is about [-1,1], not clamped.
        """
        large = enlarged(restored)
        rest = lq - large
        fine = self.stem(F.pixel_unshuffle(torch.cat([large, rest], dim=1), _PATCH))
        middle = self.down(fine)
        middle = self.up(middle + self.raise_bottom(self.bottom(middle)))
        drawn = F.pixel_shuffle(self.draw(self.last(fine + self.raise_middle(middle))), _PATCH)
        if self.config.coarse != 1:
            drawn = drawn - (1 - self.config.coarse) * enlarged(F.avg_pool2d(drawn, FACTOR))
        weights = F.interpolate(self.gates(middle).sigmoid(), size=lq.shape[-2:], mode="bilinear", align_corners=False)
        kept = sum(weights[:, k, None] * band for k, band in enumerate(bands(rest, self.config.levels)))
        return large + drawn + kept


def enlarged(restored: Tensor) -> Tensor:
    """Restored faces (B,3,h,w) at twice the size, with nothing drawn: where the last octave begins."""
    return F.interpolate(restored, scale_factor=FACTOR, mode="bicubic", align_corners=False)


def core_view(images: Tensor, octave: LastOctave | None) -> Tensor:
    """What the core sees of faces (B,3,H,W): themselves, or before a last octave the mean of each square of two by two.
    """
    return images if octave is None else F.avg_pool2d(images, FACTOR)


def finished(decoded: Tensor, seen: Tensor, skip: InputSkip | None, octave: LastOctave | None) -> Tensor:
    """The decoder's pictures (B,3,h,w) behind the input skip and the last octave, each in its own precision; float32.

    Args:
        seen: the degraded faces at the size that comes out, (B,3,h,w) or (B,3,2h,2w); all in [-1,1].
    """
    if skip is not None:
        decoded = let_through(skip, decoded, core_view(seen, octave))
    if octave is None:
        return decoded
    with at_work(octave):
        return cast(Tensor, octave(decoded.clamp(-1, 1).to(octave.dtype), seen.to(octave.dtype))).float()


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(x), approximate="tanh"))


def _residuals(width: int, count: int) -> list[nn.Module]:
    return [_Residual(width) for _ in range(count)]
