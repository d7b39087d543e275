"""CLIPScore: does the picture show what its caption says?"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prefrestore.preference.rewards.clip import ClipReward

MODEL = "openai/clip-vit-large-patch14"
SCALE = 100.0


class ClipScoreReward(ClipReward):
    """``exp(logit_scale) * cosine / 100``, the caption as it is: with the published scale of 100, the cosine itself.

    So Pref-Restore's run takes it. CLIPScore as it was introduced (Hessel et al., arXiv 2104.08718) is
    ``2.5 * max(cosine, 0)`` with ViT-B/32 and "A photo depicts" before each caption. See `ClipReward` for the options.
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
        return self.network.logit_scale.exp() * cosine / SCALE
