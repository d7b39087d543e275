"""Several rewards as one: standardised for advantages, raw for gradients, and every term told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.preference.rewards.base import Reward, RewardContext


@dataclass(frozen=True)
class MixedRewards:
    """The scores of B images."""

    total: Tensor
    """(B,); NaN where a term is."""
    terms: dict[str, Tensor]
    """Each reward's own scores (B,), as it gave them."""

    def missing(self) -> dict[str, int]:
        """How many images each term could not score."""
        return {name: int(scores.isnan().sum()) for name, scores in self.terms.items()}

    def means(self) -> dict[str, float]:
        """Each term's mean over the images that it scored; NaN if none."""
        return {name: float(scores.detach().nanmean()) for name, scores in self.terms.items()}


class RewardMix:
    """A weighted sum of rewards.

    Args:
        terms: rewards of different names, each with a weight above 0.
        raw: `combine` adds the scores as they are, as Pref-Restore's run does; their scales then weigh, too.

    Raises:
        InvalidInputError: no term, two of one name, or a weight that is no finite number above 0.
    """

    def __init__(self, terms: Sequence[tuple[Reward, float]], *, raw: bool = False) -> None:
        self.raw = raw
        self.rewards: dict[str, Reward] = {}
        self.weights: dict[str, float] = {}
        for reward, weight in terms:
            if reward.name in self.rewards:
                raise InvalidInputError(f"the reward {reward.name} is twice in the mix")
            if not (math.isfinite(weight) and weight > 0):
                raise InvalidInputError(f"the reward {reward.name} needs a weight above 0, not {weight}")
            self.rewards[reward.name], self.weights[reward.name] = reward, float(weight)
        if not self.rewards:
            raise InvalidInputError("a reward mix needs one reward or more")

    @property
    def needs_reference(self) -> bool:
        """Whether a reward compares with the ground truth."""
        return any(reward.needs_reference for reward in self.rewards.values())

    @property
    def needs_caption(self) -> bool:
        """Whether a reward reads the caption."""
        return any(reward.needs_caption for reward in self.rewards.values())

    def score(self, images: Tensor, context: RewardContext) -> dict[str, Tensor]:
        """Every reward's own scores (B,) of images (B,3,H,W) in [0,1], without gradients."""
        with torch.no_grad():
            return {name: reward(images, context) for name, reward in self.rewards.items()}

    def combine(self, terms: Mapping[str, Tensor], groups: Tensor | None = None) -> MixedRewards:
        """The weighted sum of the terms over a batch that may come from several calls of `score`.

        Each after `standardise`, or as it is (see the class).

        Weights then say how much a term counts whatever its unit is. An image that one term could not score has no
        total: neither zero nor the mean would be what it is worth.

        Raises:
            InvalidInputError: the terms are not those of this mix.
        """
        if terms.keys() != self.rewards.keys():
            raise InvalidInputError(f"this mix has the rewards {list(self.rewards)}, not {list(terms)}")
        parts = [
            self.weights[name] * (scores if self.raw else standardise(scores, groups)) for name, scores in terms.items()
        ]
        return MixedRewards(torch.stack(parts).sum(0), dict(terms))

    def __call__(self, images: Tensor, context: RewardContext, groups: Tensor | None = None) -> MixedRewards:
        """`score`, then `combine`."""
        return self.combine(self.score(images, context), groups)

    def require_gradients(self) -> None:
        """Raise InvalidInputError, naming it, if a reward of the mix has no gradients."""
        for name, reward in self.rewards.items():
            if not reward.differentiable:
                raise InvalidInputError(f"the reward {name} has no gradients: take it out of a mix that is a loss")

    def differentiable(self, images: Tensor, context: RewardContext) -> MixedRewards:
        """The weighted sum of the raw scores, with gradients for images that require them.

        Raw, because a standardised sum's gradient would depend on the rest of the batch.

        Raises:
            InvalidInputError: a reward has no gradients; the message names it.
        """
        self.require_gradients()
        terms = {name: reward(images, context) for name, reward in self.rewards.items()}
        return MixedRewards(torch.stack([self.weights[name] * scores for name, scores in terms.items()]).sum(0), terms)


def standardise(scores: Tensor, groups: Tensor | None = None, *, epsilon: float = 1e-4) -> Tensor:
    """``(scores - mean) / (std + epsilon)`` over the scores (B,) that are not NaN; std divides by their number.

    With ``groups`` (B,), the number of each image's LQ image, the mean is that of its own group, and the std that of
    what is left: how much the restorations of one face differ, not the faces. Epsilon keeps a term on which all agree
    from being blown up; a term of equal scores, or with one score, is all zeros.
    """
    valid = ~scores.isnan()
    centred = torch.full_like(scores, torch.nan)
    for members in [valid] if groups is None else [valid & (groups == group) for group in groups.unique()]:
        centred[members] = scores[members] - scores[members].mean()
    return centred / (centred[valid].square().mean().sqrt() + epsilon)
