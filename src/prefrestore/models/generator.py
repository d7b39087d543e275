"""A generator of faces of nobody: MobileStyleGAN (S. Belousov, arXiv 2104.04767) as a torch module.

It draws by the batch on any device. The network predicts the wavelet coefficients of the picture, level by level:
depthwise separable convolutions whose input channels are scaled by the style, and inverse Haar transforms between them.
Each level's noise is part of the weights, so a style has one picture. The weights are those of the package
``random_face`` 2021.7.21.1 (Apache-2.0; its teacher StyleGAN2 learnt from FFHQ, whose licence is non-commercial),
brought into this shape by ``tools/bundle/generator.py``; they are not part of this package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.files.tensors import read_into

LATENT = 512
MAPPING_LAYERS = 8
START = 4
"""Side of the learnt constant that every face grows from."""
WIDTHS = (512, 512, 512, 512, 256, 128, 64)
"""Channels behind each doubling of the side, from 8 px to 512 px; the last one's output is the picture's wavelets."""
SLOPE = 0.2


def inverse_haar(coefficients: Tensor) -> Tensor:
    """Wavelet coefficients (B,4C,h,w) -> (B,C,2h,2w): C means, then for each channel its three details.

    The details are the differences of rows, of columns, and of both; the transform is orthonormal.
    """
    count, channels, height, width = coefficients.shape
    mean, details = coefficients.split([channels // 4, 3 * channels // 4], dim=1)
    rows, columns, both = details.unflatten(1, (-1, 3)).unbind(2)
    top, bottom = (mean + rows, columns + both), (mean - rows, columns - both)
    pixels = [part for low, high in (top, bottom) for part in (low + high, low - high)]
    # (B,C,4,h,w), the four in reading order, is what pixel_shuffle takes.
    return F.pixel_shuffle(torch.stack(pixels, dim=2).flatten(1, 2), 2) / 2


class Mapping(nn.Module):
    """Normal numbers (B,512) -> styles (B,512)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(LATENT, LATENT) for _ in range(MAPPING_LAYERS))

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        x = latents * (latents.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * math.sqrt(2)
        return x


class StyledConvolution(nn.Module):
    """A convolution of channels that the style scales, then noise and bias; depthwise and pointwise, or dense.

    Demodulation is that of the mean style and lies in the weights, which is what makes the network mobile.
    """

    def __init__(self, channels: int, out: int, side: int, *, separable: bool = True) -> None:
        super().__init__()
        self.modulation = nn.Linear(LATENT, channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) if separable else None
        kernel = 1 if separable else 3
        self.mixing = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        self.noise = nn.Parameter(torch.zeros(1, 1, side, side))
        self.bias = nn.Parameter(torch.zeros(1, out, 1, 1))
        self.gain = 1 / math.sqrt(9 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B,channels,side,side) and styles (B,512) -> (B,out,side,side)."""
        x = x * (self.modulation(style) * self.gain)[:, :, None, None]
        if self.depthwise is not None:
            x = self.depthwise(x)
        return F.leaky_relu(self.mixing(x) + self.noise + self.bias, SLOPE)


class Doubling(nn.Module):
    """One level: styled wavelets to twice the side, then two styled convolutions."""

    def __init__(self, channels: int, out: int, side: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(LATENT, channels)
        self.first = StyledConvolution(channels // 4, out, side)
        self.second = StyledConvolution(out, out, side)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B,channels,side/2,side/2) and styles (B,512) -> (B,out,side,side)."""
        x = inverse_haar(x * self.modulation(style)[:, :, None, None])
        return self.second(self.first(x, style), style)


class MobileStyleGAN(nn.Module):
    """Normal numbers to faces of 1024 px, FFHQ-aligned within 5 px (of 512).

    Args:
        weights: safetensors of ``tools/bundle/generator.py``, of any precision; None leaves them random, for tests.
        widths: channels behind each doubling of the side; others than the default are for tests.

    Raises:
        WeightsError: the file is missing, or not of this network.
    """

    mean_style: Tensor

    def __init__(self, weights: Path | None = None, *, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.side = 2 * START * 2 ** len(widths)
        self.gain = 1 / math.sqrt(widths[-1])
        self.mapping = Mapping()
        self.constant = nn.Parameter(torch.randn(1, widths[0], START, START))
        self.start = StyledConvolution(widths[0], widths[0], START, separable=False)
        pairs = enumerate(zip((widths[0], *widths), widths, strict=False))
        self.levels = nn.ModuleList(Doubling(into, out, 2 * START * 2**k) for k, (into, out) in pairs)
        last = {"modulation": nn.Linear(LATENT, widths[-1]), "mixing": nn.Conv2d(widths[-1], 12, 1)}
        self.to_picture = nn.ModuleDict(last)
        self.register_buffer("mean_style", torch.zeros(1, LATENT))
        if weights is not None:
            read_into(self, weights, "the weights of the face generator")
        self.requires_grad_(False)
        self.eval()

    def synthesize(self, styles: Tensor) -> Tensor:
        """Styles (B,512) -> pictures (B,3,side,side), RGB, about [-1,1]; ``side`` is 1024."""
        x = self.start(self.constant.expand(len(styles), -1, -1, -1), styles)
        for level in self.levels:
            x = level(x, styles)
        scales = self.to_picture["modulation"](styles) * self.gain
        return inverse_haar(self.to_picture["mixing"](x * scales[:, :, None, None]))

    @torch.no_grad()
    def draw(
        self, count: int, *, generator: torch.Generator, psi: tuple[float, float] = (0.6, 1.0), size: int | None = None
    ) -> Tensor:
        """``count`` faces (count,3,size,size) in [-1,1] on the network's device.

        Args:
            generator: of the CPU; it alone decides the faces, on any device and in any number at a time.
            psi: the style is ``mean + p (style - mean)`` with p uniform in this range: 0 is the mean face, 1 the whole
                variety with its failures.
            size: a divisor of 1024, which is what None means; smaller pictures are averages of areas.

        Raises:
            InvalidInputError: no face is asked for, ``psi`` is outside 0..1.5, or ``size`` does not divide 1024.
        """
        if count < 1 or not 0 <= psi[0] <= psi[1] <= 1.5:
            raise InvalidInputError(
                f"{count} faces of psi {psi[0]}..{psi[1]} cannot be drawn: 1 or more, inside 0..1.5"
            )
        size = self.side if size is None else size
        if size < 1 or self.side % size:
            raise InvalidInputError(f"faces of {size} px cannot be averaged from {self.side} px: it must divide that")
        # Row by row: the first n faces of a generator are the same however many follow.
        rows = [(torch.randn(LATENT, generator=generator), torch.rand((), generator=generator)) for _ in range(count)]
        latents = torch.stack([row[0] for row in rows]).to(self.mean_style)
        strength = psi[0] + (psi[1] - psi[0]) * torch.stack([row[1] for row in rows]).to(self.mean_style)[:, None]
        styles = torch.lerp(self.mean_style, self.mapping(latents), strength)
        pictures = self.synthesize(styles).float().clamp(-1, 1)
        return F.avg_pool2d(pictures, self.side // size) if size != self.side else pictures
