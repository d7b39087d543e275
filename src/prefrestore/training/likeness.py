"""A loss of likeness that is hard to fool: SFace sees both pictures in random views, and is asked at several depths.

One small network asked at one place can be pleased by patterns that no other recogniser, and no eye, takes for the
person (E-LPIPS, arXiv 1906.03973, says the same of LPIPS). A pattern has to survive shifts, turns, sizes, mirroring,
light and blur to be of use here, and features that have a place, beside the vector, say where a face is wrong.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.faces.align import ffhq_template
from prefrestore.metrics.sface import SFaceNetwork, crop_faces, random_jitter

DEPTHS = (32, 50, 80)
"""Layers of SFace whose outputs are compared: 28 x 28, 14 x 14 and 7 x 7 places of the crop of 112 px."""


def random_views(images: Tensor, targets: Tensor, generator: torch.Generator, *, margin: int = 0) -> list[Tensor]:
    """Faces (B,3,S,S) in [-1,1] -> crops (B,3,112,112) for SFace; each pair is seen in one view.

    Args:
        margin: how many px of an aligned face are missing at each side of the images.
    """
    count, side, device = len(images), images.shape[-1], images.device
    points = torch.from_numpy(ffhq_template(side + 2 * margin) - margin).expand(count, 5, 2)
    jitter = random_jitter(count, generator, shift=0.1, angle=0.15)
    drawn = 2 * torch.rand(6, count, 1, 1, 1, generator=generator, device=device) - 1
    gain = 1 + 0.2 * drawn[0] + 0.1 * drawn[1:4].movedim(0, 1).squeeze(2)
    offset, mirrored, sigma = 0.15 * drawn[4], drawn[5] > 0, 1.2 * torch.rand((), generator=generator, device=device)
    views = []
    for pictures in (images, targets):
        crops = crop_faces(pictures, points, jitter)
        crops = torch.where(mirrored, crops.flip(-1), crops)
        views.append(_blur(crops * gain + offset, float(sigma)).clamp(-1, 1))
    return views


def _blur(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of 5 x 5 px."""
    weights = torch.from_numpy(np.exp(-0.5 * (np.arange(-2, 3) / max(sigma, 1e-3)) ** 2)).to(images)
    kernel = (weights / weights.sum()).view(1, 1, 1, 5).repeat(images.shape[1], 1, 1, 1)
    images = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=images.shape[1])
    return F.conv2d(images, kernel.movedim(-1, -2), groups=images.shape[1])


class LikenessLoss(nn.Module):
    """``identity``: one minus the cosine; ``features``: one minus the mean cosine of features at each place."""

    def __init__(self, network: SFaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Tensor, targets: Tensor, generator: torch.Generator, *, margin: int = 0
    ) -> dict[str, Tensor]:
        """Faces (B,3,S,S) about [-1,1] and the true ones -> two losses; ``margin`` as in `random_views`."""
        restored, clean = random_views(images, targets, generator, margin=margin)
        vector, features = self._look(restored)
        with torch.no_grad():
            true_vector, true_features = self._look(clean)
        places = [1 - F.cosine_similarity(a, b, dim=1).mean() for a, b in zip(features, true_features, strict=True)]
        return {"identity": 1 - (vector * true_vector).sum(1).mean(), "features": torch.stack(places).mean()}

    def _look(self, crops: Tensor) -> tuple[Tensor, list[Tensor]]:
        features: list[Tensor] = []
        x = (crops.add(1).mul(127.5) - self.network.shift) * self.network.scale
        for depth, layer in enumerate(self.network.layers):
            x = layer(x)
            if depth in DEPTHS:
                features.append(x)
        return F.normalize(x, dim=1), features
