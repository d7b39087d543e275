"""Tokens drawn from the language model's distribution, as the published base script does, in place of the likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class TokenSampling:
    """Draw from the ``top_k`` likeliest tokens, cut to the fewest whose share of them reaches ``top_p``.

    Args:
        generators: one a row; a row's tokens depend on its own generator alone.
        top_p: above 0, up to 1. top_k: 1 or more.

    Raises:
        InvalidInputError: a value is outside its range.
    """

    generators: Sequence[torch.Generator]
    top_p: float = 0.95
    top_k: int = 1200

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise InvalidInputError(f"top_p lies above 0 and up to 1, not {self.top_p}")
        if self.top_k < 1:
            raise InvalidInputError(f"top_k is 1 or more, not {self.top_k}")

    def draw(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Logits (B,V) of the batch's rows ``rows`` -> one index (B,) int64 a row."""
        # transformers' order: first the k likeliest, then their probabilities summed from the likeliest on.
        values, indices = logits.float().topk(min(self.top_k, logits.shape[-1]), dim=-1)
        chances = values.softmax(-1)
        before = chances.cumsum(-1) - chances
        chances = chances.where(before < self.top_p, 0)  # the likeliest always stays
        drawn = [torch.rand((), generator=self.generators[row], device=self.generators[row].device) for row in rows]
        # In float64 the last sum is what the comparison is scaled by, so that no draw falls behind the last token.
        sums = chances.double().cumsum(-1)
        points = torch.stack([one.to(logits.device, torch.float64) for one in drawn]) * sums[:, -1]
        place = torch.searchsorted(sums, points[:, None], right=True).clamp(max=sums.shape[-1] - 1)
        return indices.gather(-1, place)[:, 0]
