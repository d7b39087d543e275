"""The learned face preference, as a reward."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from prefrestore.errors import WeightsError
from prefrestore.preference.rewards.base import ImageReward, RewardContext


class PreferenceReward(ImageReward):
    """The score of a `PreferenceScorer`; only differences mean something (its zero is arbitrary).

    Args:
        folder: a scorer that `prefrestore preference fit` wrote; without it the one that comes with the package.
        scorer: a scorer that is there already: any module from images (B,3,H,W) in [0,1] to scores (B,).

    Raises:
        WeightsError: the scorer's files are missing or corrupt.
    """

    name = "preference"
    differentiable = True

    def __init__(self, folder: str | Path | None = None, *, scorer: nn.Module | None = None) -> None:
        if scorer is None:
            scorer = _load(folder)
        self.scorer = scorer.eval().requires_grad_(False)

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        return self.scorer.to(images.device)(images)


def _load(folder: str | Path | None) -> nn.Module:
    from prefrestore.models.scorer import load_bundled_scorer, load_scorer

    try:
        return load_bundled_scorer() if folder is None else load_scorer(folder)
    except WeightsError as error:
        raise WeightsError(f"the reward preference needs a scorer's folder, its option 'folder': {error}") from error
