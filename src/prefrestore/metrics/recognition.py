"""Recognisers whose weights are named by a file, for what papers report: identity by ArcFace, likeness by AdaFace.

None comes with the package. Three kinds of file are known by what is in them:

* ``arcface``: ArcFace (Deng et al., CVPR 2019) as a ResNet-18 over the whole aligned face, grey, 128 px:
  ``arcface_resnet18.pth`` of GFPGAN's releases, by which GFPGAN, VQFR and RestoreFormer state "Deg.".
* ``adaface``: AdaFace (Kim et al., CVPR 2022, arXiv 2204.00964), an improved residual network of any depth over a crop
  of 112 px, aligned to ArcFace's template, blue first.
* ``onnx``: a network over the same crop, red first, such as those of insightface; run by OpenCV, without gradients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.files.tensors import load_tensors, read_tensors
from prefrestore.files.weights import file_hash
from prefrestore.metrics.sface import crop_faces

GREY = (0.2989, 0.587, 0.114)
_ARCFACE_SIDE = 128


class Recogniser(nn.Module):
    """Images (B,3,S,S) in [-1,1], FFHQ-aligned, or with their five points (B,5,2) in px -> unit vectors (B,D).

    kind: ``arcface``, ``adaface`` or ``onnx``. sha256: of the file. differentiable: whether images get gradients.
    """

    kind: str
    sha256: str = ""
    differentiable: bool = True

    def forward(self, images: Tensor, points: Tensor | None = None) -> Tensor:
        """See the class."""
        return F.normalize(self.vectors(self.crops(images, points)).float(), dim=1)

    def crops(self, images: Tensor, points: Tensor | None) -> Tensor:
        """What the network sees of the images, in [-1,1]."""
        return crop_faces(images, points)

    def vectors(self, crops: Tensor) -> Tensor:
        """The network's own vectors (B,D)."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Recogniser:
        """Always in evaluation mode: its batch statistics are part of its weights."""
        return super().train(False)

    @torch.no_grad()
    def of(self, picture: NDArray[np.uint8], points: NDArray[np.floating] | None = None) -> NDArray[np.float32]:
        """The unit vector (D,) of one H,W,3 uint8 picture, by its face's points or as an FFHQ-aligned square."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        return self(image, None if points is None else torch.from_numpy(np.asarray(points))[None])[0].numpy()


class _GreyBlock(nn.Module):
    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn0, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(inputs), nn.PReLU()
        self.conv2, self.bn2 = nn.Conv2d(inputs, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != out:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(self.bn0(x))))))
        return self.prelu(y + (x if self.downsample is None else self.downsample(x)))


class GreyArcFace(Recogniser):
    """``arcface``: the widths of the four stages, two blocks each, and the length of the vector."""

    kind = "arcface"

    def __init__(self, widths: tuple[int, ...], length: int) -> None:
        super().__init__()
        stem, last = widths[0], widths[-1]
        self.conv1, self.bn1 = nn.Conv2d(1, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
        self.prelu = nn.PReLU()
        for place, (inputs, out) in enumerate(zip((stem, *widths), widths, strict=False), start=1):
            blocks = (_GreyBlock(inputs, out, 1 if place == 1 else 2), _GreyBlock(out, out, 1))
            self.add_module(f"layer{place}", nn.Sequential(*blocks))
        self.bn4 = nn.BatchNorm2d(last)
        self.fc5, self.bn5 = nn.Linear(last * (_ARCFACE_SIDE // 16) ** 2, length), nn.BatchNorm1d(length)

    def crops(self, images: Tensor, points: Tensor | None) -> Tensor:
        """The whole picture, grey, 128 px, bilinear without antialiasing; points play no part."""
        grey = sum(weight * images[:, channel : channel + 1] for channel, weight in enumerate(GREY))
        assert isinstance(grey, Tensor)
        return F.interpolate(grey.float(), (_ARCFACE_SIDE, _ARCFACE_SIDE), mode="bilinear", align_corners=False)

    def vectors(self, crops: Tensor) -> Tensor:
        """See `Recogniser.vectors`."""
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(crops))), 2)
        for place in range(1, 5):
            x = getattr(self, f"layer{place}")(x)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))


class _ColourBlock(nn.Module):
    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == out
            else nn.Sequential(nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.PReLU(out),
            nn.Conv2d(out, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class AdaFace(Recogniser):
    """``adaface``: the width of the stem, then of each block; the first block and each that widens has stride 2."""

    kind = "adaface"

    def __init__(self, widths: tuple[int, ...], length: int) -> None:
        super().__init__()
        stem, last = widths[0], widths[-1]
        self.input_layer = nn.Sequential(nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem))
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        strides = [2 if not place or inputs != out else 1 for place, (inputs, out) in enumerate(pairs)]
        blocks = [_ColourBlock(inputs, out, stride) for (inputs, out), stride in zip(pairs, strides, strict=True)]
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(last * 49, length),
            nn.BatchNorm1d(length, affine=False),
        )

    def vectors(self, crops: Tensor) -> Tensor:
        """See `Recogniser.vectors`; the network was trained on pictures with blue first."""
        return self.output_layer(self.body(self.input_layer(crops.flip(1))))


class OnnxRecogniser(Recogniser):
    """``onnx``: whatever maps (1,3,112,112) to a vector.

    Values in [-1,1], or in 0..255 where the graph begins by scaling them itself, as insightface tells the two apart.

    Raises:
        MissingDependencyError: the package ``onnx`` is absent.
        WeightsError: OpenCV cannot read the file.
    """

    kind = "onnx"
    differentiable = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnx
        except ImportError as error:
            raise MissingDependencyError(
                "a recogniser in an ONNX file needs the package onnx: pip install onnx"
            ) from error
        import cv2

        try:
            graph = onnx.load(path).graph
            self.network: Any = cv2.dnn.readNetFromONNX(str(path))
        except (OSError, cv2.error, ValueError, onnx.checker.ValidationError) as error:
            raise WeightsError(f"{path} cannot be read as an ONNX network") from error
        except Exception as error:  # protobuf's DecodeError, whose package is onnx's own affair
            if type(error).__name__ != "DecodeError":
                raise
            raise WeightsError(f"{path} is no ONNX file") from error
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [entry.name for entry in graph.input if entry.name not in weights]
        if len(inputs) != 1:
            raise WeightsError(f"{path} is no recogniser: it has {len(inputs)} inputs, not one")
        self.entry = inputs[0]
        self.scales = {"Sub", "Mul"} <= {node.op_type for node in graph.node[:8]}

    def vectors(self, crops: Tensor) -> Tensor:
        """See `Recogniser.vectors`; without gradients."""
        values = crops.detach().cpu().float()
        values = values.add(1).mul(127.5) if self.scales else values
        rows = []
        for value in values.numpy():  # one at a time: many of these files have a fixed batch of one
            self.network.setInput(np.ascontiguousarray(value[None]), self.entry)
            rows.append(np.array(self.network.forward(), np.float32).reshape(-1))
        return torch.from_numpy(np.stack(rows)).to(crops.device)


def load_recogniser(path: str | Path) -> Recogniser:
    """The recogniser of a file: ``.onnx``, ``.safetensors``, or one of ``torch.save`` read with ``weights_only=True``.

    Frozen and in evaluation mode; sizes are taken from the file.

    Raises:
        WeightsError: the file cannot be read, is of no known kind, or does not fit.
        MissingDependencyError: see `OnnxRecogniser`.
    """
    path = Path(path)
    network: Recogniser
    if path.suffix == ".onnx":
        if not path.is_file():
            raise WeightsError(f"{path} is missing")
        network = OnnxRecogniser(path)
    else:
        state = read_tensors(path)
        # A training's checkpoint holds the network as "model" beside the classifier that it was trained with.
        inner = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        network = _built(path, inner or state)
    network.sha256 = file_hash(path)
    return network.requires_grad_(False).eval()


def _built(path: Path, state: dict[str, Tensor]) -> Recogniser:
    network: Recogniser
    try:
        if "input_layer.0.weight" in state:
            count = len({name.split(".")[1] for name in state if name.startswith("body.")})
            blocks = [len(state[f"body.{place}.res_layer.1.weight"]) for place in range(count)]
            network = AdaFace((len(state["input_layer.0.weight"]), *blocks), len(state["output_layer.3.weight"]))
        elif "fc5.weight" in state and state["conv1.weight"].shape[1] == 1:
            widths = tuple(len(state[f"layer{place}.0.conv2.weight"]) for place in range(1, 5))
            network = GreyArcFace(widths, len(state["fc5.weight"]))
        else:
            raise WeightsError(
                f"{path} is no recogniser that is known: ArcFace's grey ResNet-18, an AdaFace of plain residual "
                "blocks, or an ONNX file"
            )
        load_tensors(network, state)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} does not fit the recogniser that it seems to be: {reason}") from error
    return network


def degrees(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The angle of two unit vectors, 0..180."""
    return float(np.degrees(np.arccos(np.clip(float(first @ second), -1, 1))))


def check_square(images: Tensor, who: str) -> None:
    """Raise InvalidInputError unless the images (B,3,H,W) are squares, as aligned faces are."""
    if images.shape[2] != images.shape[3]:
        raise InvalidInputError(f"{who} needs aligned squares, not {tuple(images.shape[2:])}")
