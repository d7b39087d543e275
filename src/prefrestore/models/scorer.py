"""The learned face preference: one small convolutional network that gives an aligned face one score."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files import weights
from prefrestore.models.layers import initialise_

SMALLEST = 64


class AmplitudeBlock(nn.Module):
    """Residual block of two 3x3 convolutions; (B,C,H,W) -> the same shape.

    Without normalisation: dividing by a map's own spread would hide how strong its noise, or how weak its detail, is.
    The second convolution starts at zero, so that a shallow stack of blocks trains without it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class PreferenceScorer(ModelMixin, ConfigMixin):
    """Aligned faces (B,3,H,W) in [0,1] -> scores (B,); differentiable, higher is better.

    Only differences of scores mean something: ``sigmoid(s_a - s_b)`` is the probability that a is preferred to b
    (Bradley-Terry). The zero is arbitrary.

    The stem keeps every pixel (pixel-unshuffle) and sets each patch's mean apart from its detail, which it makes
    ``detail_gain`` times stronger: detail is a twentieth of a face's contrast and all of the question. Two halvings
    later a cell sees an eye or a mouth whole. Beside the mean over all cells, each head of a learned attention, which
    knows where on the aligned face a cell lies, picks the cells that decide: one bad eye must not drown in a good
    background.

    Args:
        image_size: faces of another size are resized to this side (bicubic, antialiased) first.
        patch_size: side of the stem's pixel-unshuffle patches.
        widths: channels of the stages, finest first; between stages the resolution halves.
        blocks: residual blocks of each stage.
        heads: attention-pooling heads.
        detail_gain: see above.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 3,
        patch_size: int = 4,
        widths: Sequence[int] = (32, 56, 80),
        blocks: Sequence[int] = (1, 2, 1),
        heads: int = 4,
        detail_gain: float = 8.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise InvalidInputError("the scorer needs as many block counts as stage widths")
        reduction = patch_size * 2 ** (len(widths) - 1)
        if image_size % reduction or image_size < SMALLEST:
            raise InvalidInputError(f"the scorer's image size of {image_size} px is no multiple of {reduction} px")
        width, grid = widths[-1], image_size // reduction
        self.patch_size = patch_size
        self.stem = nn.Conv2d(in_channels * (patch_size**2 + 1), widths[0], 3, padding=1)
        stages: list[nn.Module] = []
        for index, (channels, depth) in enumerate(zip(widths, blocks, strict=True)):
            stages += [AmplitudeBlock(channels) for _ in range(depth)]
            if index + 1 < len(widths):
                stages.append(nn.Conv2d(channels, widths[index + 1], 3, stride=2, padding=1))
        self.stages = nn.Sequential(*stages)
        self.attention = nn.Conv2d(width, heads, 1)
        self.position = nn.Parameter(torch.zeros(1, heads, grid * grid))
        self.hidden = nn.Linear((1 + heads) * width, 64)
        self.score = nn.Linear(64, 1, bias=False)

    def initialise(self, generator: torch.Generator) -> PreferenceScorer:
        """Draw all weights anew from ``generator``; returns self."""
        initialise_(self, generator)
        for block in self.stages:
            if isinstance(block, AmplitudeBlock):
                nn.init.zeros_(block.conv2.weight)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """See the class. InvalidInputError for another shape, or a side below 64 px."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < SMALLEST:
            raise InvalidInputError(f"the scorer takes B,3,H,W of at least {SMALLEST} px, not {tuple(images.shape)}")
        side = self.config.image_size
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        patches = F.pixel_unshuffle((images * 2 - 1).to(self.dtype), self.patch_size)
        patches = patches.unflatten(1, (3, -1))
        mean = patches.mean(2, keepdim=True)
        detail = (patches - mean) * self.config.detail_gain
        cells = F.silu(self.stages(self.stem(torch.cat([mean, detail], dim=2).flatten(1, 2))))
        logits = self.attention(cells).flatten(2) + self.position
        cells = cells.flatten(2)
        picked = torch.einsum("bhn,bcn->bhc", logits.softmax(-1), cells).flatten(1)
        pooled = torch.cat([cells.mean(-1), picked], dim=1)
        return self.score(F.silu(self.hidden(pooled)))[:, 0].float()


def save_scorer(scorer: PreferenceScorer, folder: Path) -> None:
    """Write a scorer in half precision, with the hashes by which a copy is checked."""
    copy.deepcopy(scorer).half().save_pretrained(folder)
    config = folder / "config.json"
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)  # the folder it was loaded from, which means nothing elsewhere
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    weights.write_hashes(folder)


def load_scorer(folder: Path | str) -> PreferenceScorer:
    """A scorer that `save_scorer` wrote, in float32, frozen and in evaluation mode.

    Raises:
        WeightsError: the folder or a file is missing, or differs from its recorded hash.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise WeightsError(f"{path}: there is no preference scorer in this folder (no config.json)")
    weights.verify(path)
    scorer = PreferenceScorer.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True)
    return scorer.eval().requires_grad_(False)


def bundled_scorer_folder() -> Path:
    """Where the scorer that comes with the package lies."""
    return weights.BUNDLED / "scorer"


def load_bundled_scorer() -> PreferenceScorer:
    """The scorer that comes with the package; see `load_scorer`."""
    return load_scorer(bundled_scorer_folder())


def first_scorer(start_from: str, seed: int) -> PreferenceScorer:
    """What a training starts from, trainable: ``none`` (new weights), ``bundled``, or a folder's name."""
    if start_from == "none":
        scorer = PreferenceScorer().initialise(torch.Generator().manual_seed(seed))
    else:
        scorer = load_bundled_scorer() if start_from == "bundled" else load_scorer(start_from)
    return scorer.train().requires_grad_(True)


@torch.no_grad()
def score_all(scorer: PreferenceScorer, images: Sequence[Tensor] | Tensor, batch: int = 32) -> Tensor:
    """Scores (N,) of many faces (N,3,H,W) in [0,1], in evaluation mode, ``batch`` at a time."""
    training = scorer.training
    scorer.eval()
    stacked = images if isinstance(images, Tensor) else torch.stack(list(images))
    scores = [scorer(piece.to(scorer.device)).cpu() for piece in stacked.split(batch)]
    scorer.train(training)
    return torch.cat(scores)
