"""HPSv2.1: which of two pictures people prefer for a caption."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prefrestore.errors import WeightsError
from prefrestore.preference.rewards.clip import ClipReward
from prefrestore.preference.rewards.open_clip import load_open_clip

BASE = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class HpsReward(ClipReward):
    """The cosine itself, about 0.2 to 0.35 with the published weights (Wu et al., arXiv 2306.09341).

    The weights are published as an open_clip state dict, HPS_v2.1_compressed.pt. Name that file with ``open_clip``; or,
    with ``model``, a folder or hub id of the same weights as a transformers ``CLIPModel``. There is no default.

    Args:
        model: see `ClipReward`; with ``open_clip`` where the configuration, the tokenizer and the image processor of
            the same architecture are (the laion ViT-H-14 unless another is named).
        open_clip: a state dict as .pt (read without running pickled code) or .safetensors.
        processor, default_caption: see `ClipReward`.
    """

    name = "hps"

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        open_clip: str | Path | None = None,
        processor: str | Path | None = None,
        default_caption: str | None = None,
    ) -> None:
        if model is None and open_clip is None:
            raise WeightsError(
                "the reward hps has no weights: name HPS_v2.1_compressed.pt with its option 'open_clip', or a "
                "transformers CLIPModel of it with 'model'"
            )
        source = model or BASE
        network = None if open_clip is None else load_open_clip(self.name, Path(open_clip), source)
        super().__init__(source, processor=processor, default_caption=default_caption, network=network)

    def scaled(self, cosine: Tensor) -> Tensor:
        """See `ClipReward.scaled`."""
        return cosine
