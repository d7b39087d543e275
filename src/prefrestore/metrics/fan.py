"""98 facial landmarks by heat maps, for what papers report as landmark distance (LMD).

Wang, Bo and Fuxin, "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression" (ICCV 2019, arXiv 1904.07399):
four stacked hourglasses with coordinate channels, trained on WFLW. The weights are named by a file, in the published
format (``WFLW_4HG.pth``, or facexlib's ``alignment_WFLW_4HG.pth``); none comes with the package.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import WeightsError
from prefrestore.files.tensors import load_tensors, read_tensors
from prefrestore.files.weights import file_hash

SIDE = 512
"""The points are told for a picture of this side, px."""
_INPUT, _GRID, _DEPTH = 256, 64, 4
_EDGE = 0.05  # the boundary map counts from here


def coordinates(side: int) -> Tensor:
    """Row and column in [-1,1], and distance from the middle in [0,1], of every pixel (1,3,side,side)."""
    line = torch.linspace(-1, 1, side)
    row, column = torch.meshgrid(line, line, indexing="ij")
    radius = (row.square() + column.square()).sqrt()
    return torch.stack([row, column, radius / radius.max()])[None]


class _Located(nn.Module):
    """A convolution that is told where each pixel lies, and where the face's boundary was seen."""

    places: Tensor

    def __init__(self, side: int, inputs: int, out: int, kernel: int, stride: int, bounded: bool) -> None:
        super().__init__()
        self.register_buffer("places", coordinates(side), persistent=False)
        self.conv = nn.Conv2d(inputs + (5 if bounded else 3), out, kernel, stride, kernel // 2)

    def forward(self, x: Tensor, maps: Tensor | None = None) -> Tensor:
        places = self.places.expand(len(x), -1, -1, -1)
        parts = [x, places]
        if maps is not None:
            parts.append(places[:, :2] * (maps[:, -1:].clamp(0, 1) > _EDGE))
        return self.conv(torch.cat(parts, 1))


class _Block(nn.Module):
    """Three convolutions whose outputs lie side by side, and a way around them."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        half, quarter = out // 2, out // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, half, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(quarter), nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample: nn.Module | None = None
        if inputs != out:
            self.downsample = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        return torch.cat([first, second, third], 1) + (x if self.downsample is None else self.downsample(x))


class _Hourglass(nn.Module):
    def __init__(self, width: int, bounded: bool) -> None:
        super().__init__()
        self.coordconv = _Located(_GRID, width, width, 1, 1, bounded)
        for level in range(1, _DEPTH + 1):
            for name in ("b1", "b2", "b3"):
                self.add_module(f"{name}_{level}", _Block(width, width))
        self.b2_plus_1 = _Block(width, width)

    def _level(self, level: int, x: Tensor) -> Tensor:
        low = getattr(self, f"b2_{level}")(F.avg_pool2d(x, 2))
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = getattr(self, f"b3_{level}")(low)
        return getattr(self, f"b1_{level}")(x) + F.interpolate(low, scale_factor=2, mode="nearest")

    def forward(self, x: Tensor, maps: Tensor | None) -> Tensor:
        return self._level(_DEPTH, self.coordconv(x, maps))


class LandmarkNetwork(nn.Module):
    """Images (B,3,H,W) in [0,1], one aligned face in each -> heat maps (B,K,64,64) of its K points.

    Args:
        width: of the hourglasses (256 in the published file). modules: how many (4). points: K (98).
    """

    sha256: str = ""

    def __init__(self, width: int = 256, modules: int = 4, points: int = 98) -> None:
        super().__init__()
        self.modules_count = modules
        self.conv1 = _Located(_INPUT, 3, width // 4, 7, 2, bounded=False)
        self.bn1 = nn.BatchNorm2d(width // 4)
        self.conv2, self.conv3 = _Block(width // 4, width // 2), _Block(width // 2, width // 2)
        self.conv4 = _Block(width // 2, width)
        for number in range(modules):
            self.add_module(f"m{number}", _Hourglass(width, bounded=number > 0))
            self.add_module(f"top_m_{number}", _Block(width, width))
            self.add_module(f"conv_last{number}", nn.Conv2d(width, width, 1))
            self.add_module(f"bn_end{number}", nn.BatchNorm2d(width))
            self.add_module(f"l{number}", nn.Conv2d(width, points + 1, 1))  # one more: the face's boundary
            if number < modules - 1:
                self.add_module(f"bl{number}", nn.Conv2d(width, width, 1))
                self.add_module(f"al{number}", nn.Conv2d(points + 1, width, 1))

    def forward(self, images: Tensor) -> Tensor:
        """See the class; a picture is brought to 256 px, bilinear without antialiasing, as its users do."""
        x = F.interpolate(images.float(), (_INPUT, _INPUT), mode="bilinear", align_corners=False)
        x = F.avg_pool2d(self.conv2(F.relu(self.bn1(self.conv1(x)))), 2)
        x = self.conv4(self.conv3(x))
        maps: Tensor | None = None
        for number in range(self.modules_count):
            part = self._modules
            y = part[f"top_m_{number}"](part[f"m{number}"](x, maps))  # type: ignore[misc]
            y = F.relu(part[f"bn_end{number}"](part[f"conv_last{number}"](y)))  # type: ignore[misc]
            maps = part[f"l{number}"](y)  # type: ignore[misc]
            if number < self.modules_count - 1:
                x = x + part[f"bl{number}"](y) + part[f"al{number}"](maps)  # type: ignore[misc]
        assert maps is not None
        return maps[:, :-1]

    @torch.no_grad()
    def points(self, images: Tensor) -> Tensor:
        """The points (B,K,2), x and y, in px at 512, of images (B,3,H,W) in [0,1]."""
        return peaks(self(images)) * (SIDE / _GRID)


def peaks(maps: Tensor) -> Tensor:
    """Heat maps (B,K,h,w) -> the place (B,K,2) of each one's highest pixel, x and y, from the upper left corner.

    A quarter pixel towards the higher neighbour on each axis, and to the pixel's middle. At an edge the missing
    neighbour counts as the pixel itself.
    """
    height, width = maps.shape[2:]
    index = maps.flatten(2).argmax(2)
    y, x = index.div(width, rounding_mode="floor"), index % width

    def value(row: Tensor, column: Tensor) -> Tensor:
        place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        return maps.flatten(2).gather(2, place[..., None])[..., 0]

    across = (value(y, x + 1) - value(y, x - 1)).sign()
    down = (value(y + 1, x) - value(y - 1, x)).sign()
    return torch.stack([x + 0.25 * across + 0.5, y + 0.25 * down + 0.5], dim=2)


def load_landmark_network(path: str | Path) -> LandmarkNetwork:
    """The network of a file (``.safetensors``, or one of ``torch.save``); frozen, its sizes taken from the file.

    Raises:
        WeightsError: the file cannot be read or does not fit.
    """
    path = Path(path)
    # Constants of the coordinate layers that some versions of the file hold are made anew.
    state = {name: value for name, value in read_tensors(path).items() if ".addcoords." not in name}
    modules = sum(name.startswith("l") and name.endswith(".weight") and name[1:-7].isdigit() for name in state)
    try:
        width, points = len(state["m0.coordconv.conv.weight"]), len(state["l0.weight"]) - 1
        network = LandmarkNetwork(width, modules, points)
        load_tensors(network, state)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} does not hold the stacked hourglasses of 98 landmarks: {reason}") from error
    network.sha256 = file_hash(path)
    return network.requires_grad_(False).eval()
