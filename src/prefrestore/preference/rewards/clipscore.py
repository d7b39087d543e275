"""CLIPScore: does the picture show what its caption says?"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prefrestore.preference.rewards.clip import ClipReward

MODEL = "openai/clip-vit-large-patch14"
WEIGHT = 2.5


class ClipScoreReward(ClipReward):
    """``2.5 * max(cosine, 0)`` (Hessel et al., "CLIPScore", arXiv 2104.08718), the caption as it is.

    The paper takes ViT-B/32 and puts "A photo depicts" before each caption; torchmetrics takes this model, no such
    words, and 100 instead of 2.5. Below a cosine of 0 there is no gradient. See `ClipReward` for the options.
    """

    name = "clipscore"

    def __init__(
        self,
        model: str | Path = MODEL,
        *,
        processor: str | Path | None = None,
        default_caption: str | None = None,
    ) -> None:
        super().__init__(model, processor=processor, default_caption=default_caption)

    def scaled(self, cosine: Tensor) -> Tensor:
        """See `ClipReward.scaled`."""
        return WEIGHT * cosine.clamp_min(0)
