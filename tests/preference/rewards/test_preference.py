from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefrestore.errors import WeightsError
from prefrestore.models.scorer import PreferenceScorer, save_scorer
from prefrestore.preference.rewards import build_reward
from prefrestore.preference.rewards.base import RewardContext


def small() -> Any:
    scorer = PreferenceScorer(image_size=64, widths=(8, 12), blocks=(1, 1), heads=1)
    return scorer.initialise(torch.Generator().manual_seed(0)).eval()


def test_the_scorers_own_score_with_gradients(
    noise: Callable[..., Tensor], climbs: Callable[..., None], tmp_path: Path
) -> None:
    scorer = small()
    save_scorer(scorer, tmp_path / "scorer")
    reward = build_reward("preference", folder=tmp_path / "scorer")
    images = noise(0)
    with torch.no_grad():
        expected = scorer(images)
    # The folder holds half precision.
    torch.testing.assert_close(reward(images, RewardContext()), expected, rtol=1e-2, atol=1e-3)
    climbs(reward, images, RewardContext())
    assert not any(weight.requires_grad for weight in reward.scorer.parameters())  # type: ignore[attr-defined]


def test_a_missing_scorer_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'folder'"):
        build_reward("preference", folder=tmp_path)
