"""A reader of faces' attributes: linear classifiers on features of AlexNet and SFace, fitted to captioned faces.

It captions faces that nobody described, and says whether a restoration followed its prompt. Its networks are those of
the losses; dlib's, which likeness is measured by, has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.metrics.lpips import LPIPS
from prefrestore.metrics.sface import SFaceNetwork, crop_faces

_TAPS = (2, 4)
"""Which of AlexNet's five taps are read."""
_DEPTHS = (50, 80)
"""Which layers of SFace are read."""
_PLACES = 5
"""Features are averaged over a grid of so many squares a side."""


class FaceFeatures(nn.Module):
    """Aligned faces -> one long vector of what AlexNet and SFace see where. Frozen.

    Raises:
        WeightsError, MissingDependencyError: as `LPIPS` and `SFaceNetwork`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alex, self.sface = LPIPS("alex"), SFaceNetwork()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,S,S) in [-1,1], FFHQ-aligned -> (B,F) float32; differentiable."""
        images = F.interpolate(images, size=(256, 256), mode="area") if images.shape[-1] > 256 else images
        taps = self.alex.features(images)
        parts = [taps[index] for index in _TAPS]
        crops = crop_faces(images)
        x = (crops.add(1).mul(127.5) - self.sface.shift) * self.sface.scale
        for depth, layer in enumerate(self.sface.layers):
            x = layer(x)
            if depth in _DEPTHS:
                parts.append(F.normalize(x, dim=1))
        squares = [F.adaptive_avg_pool2d(part, _PLACES).flatten(1) for part in parts]
        return torch.cat([*squares, F.normalize(x, dim=1)], dim=1)


class AttributeReader:
    """Linear classifiers, one an attribute.

    Args:
        classes: the names of each attribute's classes.
        heads: for each attribute the weights (F,C) and the bias (C,).
    """

    def __init__(self, classes: dict[str, tuple[str, ...]], heads: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.classes, self.heads = classes, heads

    def scores(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B,F) of `FaceFeatures` -> for each attribute (B,C) before the softmax."""
        return {name: features @ w.to(features) + b.to(features) for name, (w, b) in self.heads.items()}

    def probabilities(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B,F) of `FaceFeatures` -> for each attribute (B,C), adding up to 1."""
        return {name: scores.softmax(1) for name, scores in self.scores(features).items()}

    def read(self, features: Tensor, *, least: float = 0.0) -> list[dict[str, str]]:
        """The likeliest class of each attribute for each face, where it is at least as likely as ``least``."""
        rows: list[dict[str, str]] = [{} for _ in range(len(features))]
        for name, chances in self.probabilities(features).items():
            for row, (chance, place) in zip(rows, zip(*chances.max(1), strict=True), strict=True):
                if chance >= least:
                    row[name] = self.classes[name][int(place)]
        return rows

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        tensors = {
            f"{name}.{part}": value.contiguous()
            for name, pair in self.heads.items()
            for part, value in zip(("weight", "bias"), pair, strict=True)
        }
        save_file(tensors, path, metadata={name: "|".join(classes) for name, classes in self.classes.items()})

    @classmethod
    def load(cls, path: Path) -> AttributeReader:
        """Read what `save` wrote; WeightsError where it is something else."""
        try:
            with safe_open(path, framework="pt") as held:
                about = held.metadata() or {}
                classes = {name: tuple(text.split("|")) for name, text in about.items()}
                heads = {n: (held.get_tensor(f"{n}.weight"), held.get_tensor(f"{n}.bias")) for n in classes}
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{path} is no attribute reader") from error
        except Exception as error:  # safetensors has one class of its own for all it cannot read
            raise WeightsError(f"{path} is no attribute reader: {error}") from error
        return cls(classes, heads)


def fit_reader(
    features: Tensor,
    rows: Sequence[dict[str, str]],
    classes: dict[str, tuple[str, ...]],
    *,
    penalty: float = 1.0,
    rank: int = 512,
    seed: int = 0,
) -> AttributeReader:
    """Multinomial logistic regressions on the ``rank`` first principal components, folded into one layer each.

    Args:
        features: (N,F).
        rows: the attributes of each face; one that a row lacks is not learnt from it.
        penalty: weight of the squared weights, in units of a sample.
        seed: of the randomised decomposition.

    Raises:
        InvalidInputError: an attribute has fewer than two classes among the rows.
    """
    mean = features.mean(0)
    centred = features - mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # it draws from the global generator and takes no other
        _, values, directions = torch.svd_lowrank(centred, q=min(rank, *centred.shape), niter=4)
    spread = values / len(features) ** 0.5
    # Half whitened: directions of little spread carry attributes too, and noise.
    basis = directions / spread.clamp_min(1e-6).sqrt()
    inside = centred @ basis
    heads = {}
    for name, names in classes.items():
        known = np.array([index for index, row in enumerate(rows) if name in row])
        labels = torch.tensor([names.index(rows[index][name]) for index in known])
        counts = torch.bincount(labels, minlength=len(names)).float()
        if (counts > 0).sum() < 2:
            raise InvalidInputError(f"the faces tell nothing apart in {name}")
        weight, bias = _logistic(inside[known], labels, counts, penalty)
        folded = basis @ weight
        heads[name] = (folded, bias - mean @ folded)
    return AttributeReader(classes, heads)


def _logistic(x: Tensor, labels: Tensor, counts: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(x.shape[1], len(counts), requires_grad=True)
    bias = torch.zeros(len(counts), requires_grad=True)
    # Rare classes count more, by the root of how rare they are.
    share = (len(labels) / counts.clamp_min(1) / len(counts)).sqrt()
    optimizer = torch.optim.LBFGS([weight, bias], lr=1, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, labels, weight=share, reduction="sum")
        loss = (loss + penalty * weight.square().sum()) / len(labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()
