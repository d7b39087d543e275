"""Against reward hacking: a reward that is watched and not optimised, and a stop when it falls.

A policy that learns to please its rewards instead of restoring faces (Gao, Schulman and Hilton, "Scaling Laws for
Reward Model Overoptimization", arXiv 2210.10760) gives itself away by a reward it does not see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.preference.rewards.base import Reward, RewardContext
from prefrestore.preference.rewards.mix import RewardMix


@dataclass
class _State:
    readings: int = 0
    skipped: int = 0
    smoothed: float = math.nan
    best: float = math.nan
    below: int = 0


class HeldOutGuard:
    """Stop when the smoothed held-out reward stays below its best by more than a tolerance.

    The first reading starts both; then ``smoothed = smoothing * smoothed + (1 - smoothing) * reading``, and the best
    is the largest smoothed value so far, so never less than the first reading.

    Args:
        reward: the held-out reward.
        mix: what is optimised.
        tolerance: how far below the best is still noise, in the reward's own unit; 0 or more.
        patience: after how many readings in a row below it the training stops; 1 or more.
        smoothing: 0 (none) to below 1.

    Raises:
        InvalidInputError: the reward is in the mix, or a number is outside its range.
    """

    def __init__(
        self, reward: Reward, mix: RewardMix, *, tolerance: float = 0.02, patience: int = 3, smoothing: float = 0.7
    ) -> None:
        if reward.name in mix.rewards:
            raise InvalidInputError(f"the reward {reward.name} is optimised, so it cannot be held out as well")
        if not (tolerance >= 0 and math.isfinite(tolerance) and patience >= 1 and 0 <= smoothing < 1):
            raise InvalidInputError(
                f"a guard takes a tolerance of 0 or more, a patience of 1 or more and a smoothing in [0,1), "
                f"not {tolerance}, {patience} and {smoothing}"
            )
        self.reward = reward
        self.tolerance, self.patience, self.smoothing = tolerance, patience, smoothing
        self._state = _State()

    @property
    def smoothed(self) -> float:
        """The smoothed value; NaN before the first reading."""
        return self._state.smoothed

    @property
    def best(self) -> float:
        """The best smoothed value; NaN before the first reading."""
        return self._state.best

    @property
    def skipped(self) -> int:
        """How many readings were NaN and did not count."""
        return self._state.skipped

    @property
    def stopped(self) -> bool:
        """Whether the last ``patience`` readings all lay below the best by more than the tolerance."""
        return self._state.below >= self.patience

    def measure(self, images: Tensor, context: RewardContext) -> float:
        """A reading: the mean of the held-out reward over the images that it can score; NaN if none."""
        with torch.no_grad():
            return float(self.reward(images, context).nanmean())

    def update(self, reading: float) -> bool:
        """Take one reading; True when the training should stop. A NaN is counted and changes nothing else."""
        state = self._state
        if math.isnan(reading):
            state.skipped += 1
            return self.stopped
        if state.readings == 0:
            state.smoothed = state.best = reading
        else:
            state.smoothed = self.smoothing * state.smoothed + (1 - self.smoothing) * reading
            state.best = max(state.best, state.smoothed)
        state.readings += 1
        state.below = state.below + 1 if state.smoothed < state.best - self.tolerance else 0
        return self.stopped

    def state_dict(self) -> dict[str, float | int]:
        """What a resumed training needs: plain numbers (NaN before the first reading)."""
        return asdict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InvalidInputError: the numbers are not a guard's.
        """
        try:
            self._state = _State(**state)
        except TypeError as error:
            raise InvalidInputError(f"this is no state of a held-out guard: {sorted(state)}") from error
