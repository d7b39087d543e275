"""The same few validation faces, restored again and again while a policy is trained: watched, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from prefrestore.models.adapter import using_adapter
from prefrestore.models.texture.conditioning import Conditions
from prefrestore.preference.rewards.base import RewardContext
from prefrestore.preference.rewards.guard import HeldOutGuard
from prefrestore.training.images import grid, to_signed
from prefrestore.training.pairs import held_out_pairs

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline


class HeldOutFaces:
    """Degraded validation faces; their conditions are computed once, and their noise is always the same.

    Args:
        pipeline: its denoiser carries the adapter that is trained.
        data: as of a training stage. count: how many faces, evenly spread over the set.
        degradation, seed: how they are degraded.
    """

    def __init__(
        self, pipeline: PrefRestorePipeline, data: Sequence[Path], *, count: int, degradation: str, seed: int
    ) -> None:
        self.pipeline = pipeline
        lq, clean, self.captions = held_out_pairs(data, pipeline.face_size, count, degradation, seed)
        self.lq, self.clean = to_signed(lq), to_signed(clean)
        self._conditions: Conditions | None = None

    def restored(self, seed: int) -> Tensor:
        """Images (B,3,S,S) in [0,1] by the denoiser as it is now."""
        if self._conditions is None:
            self._conditions = self.pipeline.conditions(self.lq.to(self.pipeline.device))
        shape = self._conditions.lq_latents.shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return self.pipeline.decode(self.pipeline.sample(self._conditions, noise), self._conditions)

    def reading(self, guard: HeldOutGuard) -> float:
        """The mean of the guard's reward over the faces."""
        images = self.restored(0)
        reference = self.clean.add(1).div(2).to(images.device)
        return guard.measure(images, RewardContext(reference=reference, captions=self.captions))

    def sheet(self) -> Image.Image:
        """Rows of a grid of eight faces: degraded, the base, four seeds of the policy, clean."""
        with using_adapter(self.pipeline.transformer, None):
            base = self.restored(0)
        rows = [base, *(self.restored(seed) for seed in range(4))]
        return grid([self.lq[:8], *(row[:8].cpu() * 2 - 1 for row in rows), self.clean[:8]])
