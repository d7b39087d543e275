"""DISTS: how alike two pictures are in structure and texture; 0 for equal pictures, lower is better.

Ding, Ma, Wang and Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity" (TPAMI 2022, arXiv
2004.07728). The features are VGG16's, with L2 pooling in place of the maximum. Its convolutions are those of LPIPS
(vgg), from the same file of the cache; what DISTS learnt itself, a weight for each channel's mean and variance, is in
the file in which IQA-PyTorch gives it out. The pictures are taken at their own size, as there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.cache import cached_file
from prefrestore.files.tensors import read_tensors
from prefrestore.files.weights import file_hash
from prefrestore.metrics.lpips import LAYOUTS, weight_file

WEIGHT_FILE = "DISTS_weights-f5e65c96.pth"
# The published name ends in the first digits of the file's SHA-256.
SHA256_START = "f5e65c96"
_SOURCE = "it is among the files of https://github.com/chaofengc/IQA-PyTorch/releases/tag/v0.1-weights"

_LAYERS = LAYOUTS["vgg"]
WIDTHS = (3, *(layer.out for layer in _LAYERS if layer.tapped))
"""Channels of what is compared: the picture itself, and the last activation of each block."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TINY = 1e-6  # the paper's c1 and c2
_SMALLEST = 16


class DISTS(nn.Module):
    """The distance of two image batches.

    Args:
        weights: the file of ``alpha`` and ``beta``; None leaves equal weights (for tests).
        backbone: LPIPS' file for vgg; None leaves the random initialisation (for tests).

    Raises:
        WeightsError: a file cannot be read or does not fit.
    """

    window: Tensor

    def __init__(self, weights: Path | None, backbone: Path | None) -> None:
        super().__init__()
        inputs = (3, *(layer.out for layer in _LAYERS))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, layer.out, 3, padding=1) for channels, layer in zip(inputs, _LAYERS, strict=False)
        )
        hann = torch.tensor([0.5, 1.0, 0.5])  # Hann's window of five without its zeros
        self.register_buffer("window", torch.outer(hann, hann)[None, None] / 4, persistent=False)
        self.alpha, self.beta = (nn.Parameter(torch.ones(sum(WIDTHS))) for _ in range(2))
        if backbone is not None:
            found = read_tensors(backbone)
            self._take(backbone, {f"convs.{key}": found.get(f"convs.{key}") for key in self.convs.state_dict()})
        if weights is not None:
            found = read_tensors(weights)
            self._take(weights, {key: found[key].flatten() if key in found else None for key in ("alpha", "beta")})
        self.requires_grad_(False)
        self.eval()

    def _take(self, path: Path, found: dict[str, Tensor | None]) -> None:
        own = self.state_dict()
        for key, value in found.items():
            if value is None or value.shape != own[key].shape:
                raise WeightsError(f"{path} does not hold what DISTS needs: {key} is missing or of another shape")
            own[key] = value
        self.load_state_dict(own)

    def features(self, images: Tensor) -> list[Tensor]:
        """The six things that are compared, (B,C,h,w) each, of images (B,3,H,W) in [0,1]."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < _SMALLEST:
            raise InvalidInputError(
                f"DISTS needs B,3,H,W pictures of {_SMALLEST} px or more, not {tuple(images.shape)}"
            )
        x = (images - images.new_tensor(_MEAN).view(1, 3, 1, 1)) / images.new_tensor(_STD).view(1, 3, 1, 1)
        seen = [images]
        for conv, layer in zip(self.convs, _LAYERS, strict=True):
            x = F.relu(conv(self._pool(x) if layer.pool else x))
            if layer.tapped:
                seen.append(x)
        return seen

    def _pool(self, x: Tensor) -> Tensor:
        """The root of the local mean square, every second pixel."""
        window = self.window.expand(x.shape[1], -1, -1, -1)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()

    def between(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """The distances (B,) of two sets of `features`: 1 minus the weighted likeness of means and variances."""
        whole = self.alpha.sum() + self.beta.sum()
        likeness = first[0].new_zeros(len(first[0]))
        for a, b, alpha, beta in zip(first, second, self.alpha.split(WIDTHS), self.beta.split(WIDTHS), strict=True):
            mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
            structure = (2 * mean_a * mean_b + _TINY) / (mean_a.square() + mean_b.square() + _TINY)
            spread = a.var((2, 3), correction=0) + b.var((2, 3), correction=0)
            shared = (a * b).mean((2, 3)) - mean_a * mean_b
            likeness = likeness + (alpha * structure + beta * (2 * shared + _TINY) / (spread + _TINY)).sum(1)
        return 1 - likeness / whole

    @torch.no_grad()
    def of(self, picture: NDArray[np.uint8]) -> list[Tensor]:
        """The features of one H,W,3 uint8 picture."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
        return self.features(image)


def weights_paths() -> tuple[Path, Path]:
    """DISTS' own weights and its backbone's, in the cache.

    Raises:
        WeightsError: one is not there, or the first is not the file whose name it has.
    """
    path = cached_file(WEIGHT_FILE, advice=f"put the file there; {_SOURCE}")
    if not (found := file_hash(path)).startswith(SHA256_START):
        raise WeightsError(f"{path} has the SHA-256 {found}, which does not begin with {SHA256_START}: fetch it again.")
    return path, cached_file(weight_file("vgg"))
