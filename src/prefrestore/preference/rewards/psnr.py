"""Closeness of the pixels: PSNR in units of 50 dB."""

from __future__ import annotations

from torch import Tensor

from prefrestore.preference.rewards.base import ImageReward, RewardContext

FULL_SCALE = 50.0  # dB; a difference that 8 bits hide almost whole
_LEAST_ERROR = 10 ** (-FULL_SCALE / 10)


class PsnrReward(ImageReward):
    """``10 log10(1 / MSE) / 50`` over all pixels and channels of images in [0,1]: 0.5 is 25 dB.

    The error counts as 1e-5 at least, so equal pictures score 1 (50 dB) and the gradient stays finite. The scale puts
    the score beside the other rewards' 0..1.
    """

    name = "psnr"
    needs_reference = True
    differentiable = True

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.reference is not None
        error = (images - context.reference).square().flatten(1).mean(1)
        return -10 * error.clamp_min(_LEAST_ERROR).log10() / FULL_SCALE
