"""LPIPS v0.1, the learned perceptual distance of Zhang et al., "The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric" (CVPR 2018, arXiv 1801.03924), equation 1.

The backbones are AlexNet (Krizhevsky's one-column variant) and VGG16, as plain convolutions; their weights
and the learned heads are measuring weights, fetched once into a cache by `python -m
prefrestore.evaluation.fetch`.
"""

import itertools
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrestore.errors import InvalidInputError
from prefrestore.files.cache import cached_file
from prefrestore.files.tensors import read_into

Net = Literal["alex", "vgg"]


class _Conv(NamedTuple):
    """One convolution followed by ReLU; `pool` is the max-pooling kernel applied before it (0: none), stride
    2."""

    out: int
    kernel: int
    stride: int
    pool: int
    tapped: bool


_ALEX = (
    _Conv(64, 11, 4, 0, True),
    _Conv(192, 5, 1, 3, True),
    _Conv(384, 3, 1, 3, True),
    _Conv(256, 3, 1, 0, True),
    _Conv(256, 3, 1, 0, True),
)
# VGG16 is five blocks of 3x3 convolutions with 2x2 pooling between them; LPIPS taps the last ReLU of each
# block.
_VGG = tuple(
    _Conv(width, 3, 1, 2 if block and not place else 0, place == depth - 1)
    for block, (width, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)])
    for place in range(depth)
)
LAYOUTS: dict[str, tuple[_Conv, ...]] = {"alex": _ALEX, "vgg": _VGG}
_SMALLEST = {"alex": 35, "vgg": 16}
_EPSILON = 1e-10


def weight_file(net: str) -> str:
    """The name of a network's converted weights in the cache."""
    return f"lpips_{net}.safetensors"


class LPIPS(nn.Module):
    """Perceptual distance of two image batches: 0 for equal pictures, about 0.7 for unrelated ones.

    Weights are frozen; the distance is differentiable with respect to both images.

    Args:
        net: "alex" (the usual one to report) or "vgg" (the usual one to train with).
        pretrained: read the cached weights; False leaves the random initialisation (for tests).
        weights: a safetensors file to read instead of the cached one.

    Raises:
        InvalidInputError: an unknown network.
        WeightsError: the weights are missing or do not fit.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net = "alex", *, pretrained: bool = True, weights: Path | None = None) -> None:
        super().__init__()
        if net not in LAYOUTS:
            raise InvalidInputError(f"LPIPS knows the networks {sorted(LAYOUTS)}, not {net!r}.")
        self.net = net
        self.layout = LAYOUTS[net]
        inputs = [3, *(conv.out for conv in self.layout)]
        # AlexNet's first convolution is the only strided one, padded by 2 and not by half its kernel.
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, conv.out, conv.kernel, conv.stride, 2 if conv.stride > 1 else conv.kernel // 2)
            for channels, conv in zip(inputs, self.layout, strict=False)
        )
        self.heads = nn.ParameterList(torch.full((conv.out,), 1 / conv.out) for conv in self.layout if conv.tapped)
        # The published constants turn [-1,1] into ImageNet's normalisation.
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        if pretrained or weights is not None:
            read_into(self, weights or cached_file(weight_file(net)), f"the LPIPS weights of {net}")
        self.requires_grad_(False)
        self.eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """The tapped activations, each B,C,h,w, of unit length along C, for images B,3,H,W in [-1,1]."""
        if min(images.shape[2:]) < _SMALLEST[self.net]:
            raise InvalidInputError(f"LPIPS ({self.net}) needs pictures of {_SMALLEST[self.net]} px or more.")
        x = (images - self.shift) / self.scale
        taps = []
        for conv, spec in zip(self.convs, self.layout, strict=True):
            if spec.pool:
                x = functional.max_pool2d(x, spec.pool, 2)
            x = functional.relu(conv(x))
            if spec.tapped:
                # The clamp keeps the gradient of the root finite where every activation is zero.
                length = x.square().sum(1, keepdim=True).clamp_min(_EPSILON**2).sqrt()
                taps.append(x / (length + _EPSILON))
        return taps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of each pair.

        Args:
            first, second: B,3,H,W in [-1,1].

        Returns:
            B distances, 0 or more.

        Raises:
            InvalidInputError: shapes that differ or pictures too small for the network.
        """
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3:
            raise InvalidInputError(
                f"LPIPS compares two B,3,H,W batches of one shape, not {tuple(first.shape)} and {tuple(second.shape)}."
            )
        return self.between(self.features(first), self.features(second))

    def between(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """The B distances of two sets of `features`, so that a reference's features need computing only once."""
        total = torch.zeros(len(first[0]), device=first[0].device)
        for head, a, b in zip(self.heads, first, second, strict=True):
            total = total + ((a - b).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total


def random_view(images: Tensor, targets: Tensor, generator: torch.Generator, shift: int = 8) -> tuple[Tensor, Tensor]:
    """The same random crop, mirroring and order of colours of both (B,3,H,W) -> (B,3,H-shift,W-shift) each.

    A perceptual network sees little of some patterns: AlexNet strides over every fourth pixel, and has colours that it
    likes. What escapes it in one view is seen in others (E-LPIPS, arXiv 1906.03973).
    """
    top, left, mirrored, rotated = (
        int(torch.randint(high, (), generator=generator, device=generator.device)) for high in (shift, shift, 2, 6)
    )
    height, width = (side - shift for side in images.shape[-2:])
    order = list(itertools.permutations(range(3)))[rotated]

    def view(x: Tensor) -> Tensor:
        x = x[:, order, top : top + height, left : left + width]
        return x.flip(-1) if mirrored else x

    return view(images), view(targets)
