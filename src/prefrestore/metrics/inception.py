"""The network whose features FID and KID compare: Inception v3 of 2015-12-05, as pytorch-fid ported it.

Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016, arXiv 1512.00567). The original TensorFlow graph
differs from other copies in three places, kept here: average pooling leaves the padding out, the last block pools by
maximum, and there is no auxiliary head. The keys are those of pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`;
`docs/evaluation.md` says how that pickle becomes the safetensors file that is read here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from prefrestore.files.tensors import read_into

WIDTH = 2048
_SIDE = 299


class _Conv(nn.Module):
    """Convolution without bias, batch normalisation (eps 1e-3), ReLU; padded so that stride 1 keeps the size."""

    def __init__(self, inputs: int, out: int, kernel: int | tuple[int, int], stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, out, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side, concatenated by channel; a branch is the names of its layers in order."""

    branches: tuple[tuple[str, ...], ...]
    branch_pool: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._branch(x, names) for names in self.branches] + self._pooled(x), 1)

    def _branch(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        for name in names:
            # "a|b": two layers on the same input, side by side.
            x = torch.cat([getattr(self, part)(x) for part in name.split("|")], 1)
        return x

    def _pooled(self, x: Tensor) -> list[Tensor]:
        pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return [self.branch_pool(pooled)]


class _A(_Block):
    branches = (("branch1x1",), ("branch5x5_1", "branch5x5_2"), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"))

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Conv(inputs, 48, 1), _Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3)
        self.branch_pool = _Conv(inputs, pooled, 1)


class _B(_Block):
    branches = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"))

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, 2, pad=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, 2, pad=False)

    def _pooled(self, x: Tensor) -> list[Tensor]:
        return [functional.max_pool2d(x, 3, 2)]


class _C(_Block):
    _LONG = tuple(f"branch7x7dbl_{i}" for i in range(1, 6))
    branches = (("branch1x1",), ("branch7x7_1", "branch7x7_2", "branch7x7_3"), _LONG)

    def __init__(self, inputs: int, c: int) -> None:
        super().__init__()
        across, down = (1, 7), (7, 1)
        self.branch1x1 = _Conv(inputs, 192, 1)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = (
            _Conv(inputs, c, 1),
            _Conv(c, c, across),
            _Conv(c, 192, down),
        )
        widths = (inputs, c, c, c, c, 192)
        for place, (name, kernel) in enumerate(zip(self._LONG, ((1, 1), down, across, down, across), strict=True)):
            setattr(self, name, _Conv(widths[place], widths[place + 1], kernel))
        self.branch_pool = _Conv(inputs, 192, 1)


class _D(_Block):
    branches = (("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{i}" for i in range(1, 5)))

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Conv(inputs, 192, 1), _Conv(192, 320, 3, 2, pad=False)
        self.branch7x7x3_1 = _Conv(inputs, 192, 1)
        self.branch7x7x3_2, self.branch7x7x3_3 = _Conv(192, 192, (1, 7)), _Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = _Conv(192, 192, 3, 2, pad=False)

    def _pooled(self, x: Tensor) -> list[Tensor]:
        return [functional.max_pool2d(x, 3, 2)]


class _E(_Block):
    branches = (
        ("branch1x1",),
        ("branch3x3_1", "branch3x3_2a|branch3x3_2b"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a|branch3x3dbl_3b"),
    )

    def __init__(self, inputs: int, *, by_maximum: bool = False) -> None:
        super().__init__()
        self.by_maximum = by_maximum
        self.branch1x1 = _Conv(inputs, 320, 1)
        self.branch3x3_1 = _Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 448, 1), _Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch_pool = _Conv(inputs, 192, 1)

    def _pooled(self, x: Tensor) -> list[Tensor]:
        return [self.branch_pool(functional.max_pool2d(x, 3, 1, 1))] if self.by_maximum else super()._pooled(x)


class InceptionV3(nn.Module):
    """Images B,3,H,W in [0,1] -> features B,2048, the last average pooling's.

    Args:
        weights: a safetensors file with pytorch-fid's keys; None leaves the random initialisation (for tests).

    Raises:
        WeightsError: the file cannot be read or does not fit.
    """

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2, pad=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b, self.Mixed_6c = _C(768, 128), _C(768, 160)
        self.Mixed_6d, self.Mixed_6e = _C(768, 160), _C(768, 192)
        self.Mixed_7a = _D(768)
        self.Mixed_7b, self.Mixed_7c = _E(1280), _E(2048, by_maximum=True)
        if weights is not None:
            # The counter of batches is absent from the ported file and plays no part in inference.
            read_into(self, weights, "pytorch-fid's Inception", without=("fc.",))
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """See the class; any size goes in and is resized to 299 px."""
        x = functional.interpolate(images, (_SIDE, _SIDE), mode="bilinear", align_corners=False) * 2 - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))

    @torch.no_grad()
    def of(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The 2,048 features of one H,W,3 uint8 picture."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
        return self(image)[0].numpy()
