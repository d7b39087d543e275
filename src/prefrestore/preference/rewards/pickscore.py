"""PickScore: how people who wrote a prompt would like the picture made for it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prefrestore.preference.rewards.clip import ClipReward

MODEL = "yuvalkirstain/PickScore_v1"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


SCALE = 26.0


class PickScoreReward(ClipReward):
    """``exp(logit_scale) * cosine / 26`` (Kirstain et al., "Pick-a-Pic", arXiv 2305.01569).

    The published score is ``exp(logit_scale) * cosine``, about 20 with the published weights; Pref-Restore's run takes
    a 26th of it, as Flow-GRPO does, so that it comes near 1. See `ClipReward` for the options; without any, the
    published model.
    """

    name = "pickscore"

    def __init__(
        self,
        model: str | Path = MODEL,
        *,
        processor: str | Path | None = None,
        default_caption: str | None = None,
    ) -> None:
        # The published repository's own example takes the processor of the model that PickScore was tuned from.
        processor = processor or (PROCESSOR if model == MODEL else None)
        super().__init__(model, processor=processor, default_caption=default_caption)

    def scaled(self, cosine: Tensor) -> Tensor:
        """See `ClipReward.scaled`."""
        return self.network.logit_scale.exp() * cosine / SCALE
