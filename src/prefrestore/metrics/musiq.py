"""MUSIQ: the quality of one picture as people would rate it, with no reference picture; higher is better.

Ke, Wang, Wang, Milanfar, Yang, "MUSIQ: Multi-scale Image Quality Transformer" (ICCV 2021, arXiv 2108.05997). The
picture is cut into patches of 32 px at three sizes; each patch becomes a token by a small residual network, is told its
place on a 10 x 10 grid and its size, and a transformer reads all tokens at once.

The weights are those fitted to KonIQ-10k (ratings of 0 to 100), in the file and under the keys in which IQA-PyTorch
gives them out. That project resizes with PyTorch's bicubic filter and takes the exact GELU, and so does this module, as
its file's users expect; the authors' own program (google-research/musiq) resizes with a Gaussian and takes GELU's tanh
form.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.cache import cached_file
from prefrestore.files.fingerprints import file_hash

WEIGHT_FILE = "musiq_koniq_ckpt-e95806b9.pth"
# The published name ends in the first digits of the file's SHA-256.
SHA256_START = "e95806b9"
_SOURCE = "it is among the files of https://github.com/chaofengc/IQA-PyTorch/releases/tag/v0.1-weights"

PATCH = 32
GRID = 10
LONGER_SIDES = (224, 384)
"""The longer side of each smaller or larger copy; the picture itself comes last."""
_WIDTH, _HEADS, _HIDDEN, _DEPTH = 384, 6, 1152, 14
_STEM = 64


class _StandardisedConv(nn.Conv2d):
    """Convolution without bias whose kernels are brought to mean 0 and deviation 1 (Qiao et al., arXiv 1903.10520).

    An even surplus of padding goes to both sides and an odd pixel to the right and below, so that a side of n becomes
    ceil(n / stride).
    """

    def __init__(self, inputs: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # The sample's deviation, as there; the population's differs by a factor that the next normalisation takes out.
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        x = functional.pad(x, _padding(x, self.kernel_size[0], self.stride[0]))
        return functional.conv2d(x, (self.weight - mean) / (deviation + 1e-5), stride=self.stride)


class _Bottleneck(nn.Module):
    """The residual block of the stem: 64 channels in, 256 out, the size kept."""

    def __init__(self) -> None:
        super().__init__()
        out = 4 * _STEM
        self.conv1, self.gn1 = _StandardisedConv(_STEM, _STEM, 1), nn.GroupNorm(32, _STEM, eps=1e-4)
        self.conv2, self.gn2 = _StandardisedConv(_STEM, _STEM, 3), nn.GroupNorm(32, _STEM, eps=1e-4)
        self.conv3, self.gn3 = _StandardisedConv(_STEM, out, 1), nn.GroupNorm(32, out, eps=1e-4)
        self.conv_proj, self.gn_proj = _StandardisedConv(_STEM, out, 1), nn.GroupNorm(32, out, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.gn1(self.conv1(x)))
        y = functional.relu(self.gn2(self.conv2(y)))
        return functional.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = (layer(x).unflatten(-1, (_HEADS, -1)).transpose(-3, -2) for layer in (self.query, self.key, self.value))
        return self.out(functional.scaled_dot_product_attention(*heads).transpose(-3, -2).flatten(-2))


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(_WIDTH, eps=1e-6), nn.LayerNorm(_WIDTH, eps=1e-6)
        self.attention = _Attention()
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(_WIDTH, _HIDDEN), "fc2": nn.Linear(_HIDDEN, _WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class _Encoder(nn.Module):
    """Tokens (1,L,384), their places and sizes (L) -> the state (1,384) of the token that stands for the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.posembed_input = nn.ParameterDict({"position_emb": _normal(1, GRID**2, _WIDTH)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": _normal(len(LONGER_SIDES) + 1, _WIDTH)})
        self.cls = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.transformer = nn.ModuleDict({f"encoderblock_{place}": _Layer() for place in range(_DEPTH)})
        self.encoder_norm = nn.LayerNorm(_WIDTH, eps=1e-6)

    def forward(self, tokens: Tensor, places: Tensor, sizes: Tensor) -> Tensor:
        tokens = tokens + self.posembed_input["position_emb"][0, places] + self.scaleembed_input["scale_emb"][sizes]
        x = torch.cat([self.cls, tokens], 1)
        for layer in self.transformer.values():
            x = layer(x)
        return self.encoder_norm(x[:, 0])


class MUSIQ(nn.Module):
    """A picture's patches -> its quality, about 0 to 100.

    Args:
        weights: a file in the published format; None leaves the random initialisation (for tests).

    Raises:
        WeightsError: the file cannot be read, or a key is missing, unknown or of another shape.
    """

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.conv_root, self.gn_root = _StandardisedConv(3, _STEM, 7, 2), nn.GroupNorm(32, _STEM, eps=1e-6)
        self.block1 = _Bottleneck()
        self.embedding = nn.Linear(4 * _STEM * (PATCH // 4) ** 2, _WIDTH)
        self.transformer_encoder = _Encoder()
        self.head = nn.Linear(_WIDTH, 1)
        if weights is not None:
            self._read(weights)
        self.requires_grad_(False)
        self.eval()

    def _read(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsError(f"{path} cannot be read as PyTorch weights: {reason}") from error
        if not isinstance(state, dict):
            raise WeightsError(f"{path} does not hold MUSIQ's weights by their names.")
        own = self.state_dict()
        for key, value in own.items():
            found = state.get(key)
            if not isinstance(found, Tensor):
                raise WeightsError(f"{path} does not hold the weights of MUSIQ (KonIQ-10k): {key} is missing.")
            if found.shape != value.shape:
                shapes = f"{tuple(found.shape)} and not {tuple(value.shape)}"
                raise WeightsError(f"{path} does not hold the weights of MUSIQ (KonIQ-10k): {key} is {shapes}.")
        if unknown := sorted(map(str, state.keys() - own.keys())):
            raise WeightsError(f"{path} does not hold the weights of MUSIQ (KonIQ-10k): it has {unknown[0]} too.")
        self.load_state_dict(state)

    def forward(self, patches: Tensor, places: Tensor, sizes: Tensor) -> Tensor:
        """`multiscale`'s patches (L,3,32,32), places (L) and sizes (L) of one picture -> its quality, one number."""
        x = functional.relu(self.gn_root(self.conv_root(patches)))
        # Zeros are no more than any value after ReLU, so the padding never wins.
        x = self.block1(functional.max_pool2d(functional.pad(x, _padding(x, 3, 2)), 3, 2))
        tokens = self.embedding(x.permute(0, 2, 3, 1).flatten(1))[None]
        return self.head(self.transformer_encoder(tokens, places, sizes))[0, 0]

    @torch.no_grad()
    def of(self, picture: NDArray[np.uint8]) -> float:
        """The quality of one H,W,3 RGB uint8 picture; see `multiscale` for what it raises."""
        image = torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1).float() / 127.5 - 1
        return float(self(*multiscale(image)))


def multiscale(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The patches of a picture (3,H,W) in [-1,1] with the longer side 224, then 384, then as it is.

    Returns:
        patches (L,3,32,32), row by row; their places (L), 10 row + column on the grid; their sizes (L), 0 to 2.

    Raises:
        InvalidInputError: the image is not 3,H,W, or so narrow that nothing of it is left at 224 px.
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise InvalidInputError(f"MUSIQ needs a 3,H,W image, not {tuple(image.shape)}.")
    height, width = image.shape[1:]
    copies = []
    for longer in LONGER_SIDES:
        ratio = longer / max(height, width)
        side = round(height * ratio), round(width * ratio)
        if not min(side):
            raise InvalidInputError(f"MUSIQ cannot judge a picture as narrow as {width}x{height}.")
        copies.append(functional.interpolate(image[None], side, mode="bicubic", align_corners=False)[0])
    parts = [_patches(copy) for copy in (*copies, image)]
    sizes = torch.cat([places.new_full(places.shape, size) for size, (_, places) in enumerate(parts)])
    return torch.cat([patches for patches, _ in parts]), torch.cat([places for _, places in parts]), sizes


def _patches(image: Tensor) -> tuple[Tensor, Tensor]:
    """(3,H,W), padded with zeros to whole patches -> patches (P,3,32,32) and their places (P) on the grid."""
    image = functional.pad(image, _padding(image, PATCH, PATCH))
    rows, columns = image.shape[1] // PATCH, image.shape[2] // PATCH
    patches = image.unflatten(2, (columns, PATCH)).unflatten(1, (rows, PATCH)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    grid = torch.arange(GRID, dtype=torch.float32, device=image.device)[None, None]
    down, across = (functional.interpolate(grid, count, mode="nearest")[0, 0].long() for count in (rows, columns))
    return patches, (down[:, None] * GRID + across).flatten()


def _padding(x: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom for ``(..., H, W)`` so that a window at every stride-th pixel ends inside."""
    total = [max(0, (math.ceil(side / stride) - 1) * stride + kernel - side) for side in x.shape[-2:]]
    (top, bottom), (left, right) = ((surplus // 2, surplus - surplus // 2) for surplus in total)
    return left, right, top, bottom


def _normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.02)


def weights_path() -> Path:
    """The weights in the cache.

    Raises:
        WeightsError: they are not there, or the file is not the one whose name it has.
    """
    path = cached_file(WEIGHT_FILE, advice=f"put the file there; {_SOURCE}")
    if not (found := file_hash(path)).startswith(SHA256_START):
        raise WeightsError(f"{path} has the SHA-256 {found}, which does not begin with {SHA256_START}: fetch it again.")
    return path
