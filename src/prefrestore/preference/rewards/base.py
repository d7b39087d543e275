"""What a reward is: a batch of images and what is known about them -> one score an image, higher is better."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prefrestore.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class RewardContext:
    """What is known about each of B images; a reward says which of it it needs."""

    reference: Tensor | None = None
    """The ground truths (B,3,H,W) in [0,1], of the images' own size."""
    captions: Sequence[str | None] | None = None
    """B captions; None where a picture has none."""
    lq: Tensor | None = None
    """The degraded inputs (B,3,h,w) in [0,1]."""
    views: torch.Generator | None = None
    """Training only: draws the view, one a call for all images, in which perceptual distances are taken, so that the
    policy does not learn the blind spots of one view; None looks straight, as measurements do."""

    def repeat(self, n: int) -> RewardContext:
        """Each image's context n times in a row, for groups of n restorations of one LQ image."""
        return RewardContext(
            reference=None if self.reference is None else self.reference.repeat_interleave(n, 0),
            captions=None if self.captions is None else [caption for caption in self.captions for _ in range(n)],
            lq=None if self.lq is None else self.lq.repeat_interleave(n, 0),
            views=self.views,
        )

    def select(self, index: Sequence[int]) -> RewardContext:
        """The contexts of some of the images."""
        rows = list(index)
        return RewardContext(
            reference=None if self.reference is None else self.reference[rows],
            captions=None if self.captions is None else [self.captions[row] for row in rows],
            lq=None if self.lq is None else self.lq[rows],
            views=self.views,
        )


class Reward(Protocol):
    """Images (B,3,H,W) in [0,1] and their context -> (B,) float32, higher is better, NaN for what has no score."""

    name: str
    needs_reference: bool
    needs_caption: bool
    differentiable: bool

    def __call__(self, images: Tensor, context: RewardContext) -> Tensor:
        """The scores; with gradients when the images ask for them and the reward is differentiable."""


class ImageReward(ABC):
    """What every reward of this package does before and after its own `score`.

    A sample with a NaN or infinite pixel, in the image or in the reference that the reward needs, scores NaN and does
    not touch the others. Nothing is tracked for gradients unless the images require them.

    Raises (when called):
        InvalidInputError: images of another shape, or the context lacks what the reward needs.
    """

    name: str
    needs_reference: bool = False
    needs_caption: bool = False
    differentiable: bool = False

    def __call__(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `Reward`."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InvalidInputError(
                f"the reward {self.name} scores float images of shape (B,3,H,W), not {images.dtype} "
                f"{tuple(images.shape)}"
            )
        valid = _finite(images)
        if self.needs_reference:
            reference = self._reference(images, context)
            valid = valid & _finite(reference)
            context = replace(context, reference=_without_nan(reference))
        if self.needs_caption and (context.captions is None or len(context.captions) != len(images)):
            raise InvalidInputError(
                f"the reward {self.name} needs a caption, or None, for each of the {len(images)} images"
            )
        tracked = self.differentiable and images.requires_grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(tracked):
            scores = self.score(_without_nan(images), context).float()
            return torch.where(valid, scores, torch.full_like(scores, torch.nan))

    @abstractmethod
    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """Scores (B,) of finite float32 images; the context holds what the reward said it needs."""

    def _reference(self, images: Tensor, context: RewardContext) -> Tensor:
        reference = context.reference
        if reference is None:
            raise InvalidInputError(f"the reward {self.name} needs the ground truth of each image")
        if reference.shape != images.shape:
            raise InvalidInputError(
                f"the reward {self.name} compares images and ground truths of one shape, not {tuple(images.shape)} "
                f"and {tuple(reference.shape)}"
            )
        return reference.detach().to(images.device)


def distinct(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbouring equal rows only once, and for each row of the batch the place of its own.

    The restorations of one LQ image share their ground truth, so what is computed from it needs computing once.
    """
    rows, place = torch.unique_consecutive(batch, dim=0, return_inverse=True)
    return rows, place


def pictures(images: Tensor, side: int | None = None) -> NDArray[np.uint8]:
    """Images (B,3,H,W) in [0,1] as 8-bit pictures (B,H,W,3); resized to ``side`` x ``side`` where one is given."""
    images = images.detach().float()
    if side is not None and images.shape[2:] != (side, side):
        images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _finite(images: Tensor) -> Tensor:
    return images.detach().isfinite().flatten(1).all(1)


def _without_nan(images: Tensor) -> Tensor:
    return images.float().nan_to_num(0.0, 0.0, 0.0)
