"""Minus the perceptual distance to the ground truth: -LPIPS, 0 for equal pictures and below it for all others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from prefrestore.metrics.lpips import LPIPS, Net, random_view
from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct


class LpipsReward(ImageReward):
    """-LPIPS v0.1 (Zhang et al., arXiv 1801.03924); the network is in the name: lpips_alex or lpips_vgg.

    Args:
        net: "alex" or "vgg".
        weights: a safetensors file to read instead of the cached one.

    Raises:
        InvalidInputError: an unknown network, or (when called) images too small for it.
        WeightsError: the weights are missing; the message names the command that fetches them.
    """

    needs_reference = True
    differentiable = True

    def __init__(self, net: Net = "alex", *, weights: str | Path | None = None) -> None:
        self.name = f"lpips_{net}"
        self.network = LPIPS(net, weights=None if weights is None else Path(weights))

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.reference is not None
        network = self.network.to(images.device)
        rows, place = distinct(context.reference)
        if context.views is not None:
            images, rows = random_view(images, rows, context.views)
        with torch.no_grad():
            known = [features[place] for features in network.features(rows * 2 - 1)]
        return -network.between(network.features(images * 2 - 1), known)
