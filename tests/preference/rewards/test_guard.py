import json
import math

import pytest
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.preference.rewards import build_reward
from prefrestore.preference.rewards.base import ImageReward, RewardContext
from prefrestore.preference.rewards.guard import HeldOutGuard
from prefrestore.preference.rewards.mix import RewardMix


class Brightness(ImageReward):
    name = "brightness"

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        return images.mean((1, 2, 3))


def guard(tolerance: float = 0.1, patience: int = 2, smoothing: float = 0.5) -> HeldOutGuard:
    mix = RewardMix([(build_reward("psnr"), 1.0)])
    return HeldOutGuard(Brightness(), mix, tolerance=tolerance, patience=patience, smoothing=smoothing)


def test_smoothed_and_best_by_hand_and_the_stop() -> None:
    watch = guard()
    readings = [1.0, 2.0, 1.0, 1.0, 1.5, 1.0, 1.0]
    # smoothed 1, 1.5, 1.25, 1.125, 1.3125, 1.15625 ...; best 1.5 from the second on; below means under 1.4.
    assert [watch.update(value) for value in readings[:3]] == [False, False, False]
    assert (watch.smoothed, watch.best) == (1.25, 1.5)
    assert watch.update(1.0) and watch.stopped
    assert watch.smoothed == 1.125


def test_a_recovery_starts_the_count_anew() -> None:
    watch = guard(smoothing=0)
    assert [watch.update(value) for value in (1.0, 0.8, 0.95, 0.8, 0.8)] == [False, False, False, False, True]


def test_the_tolerance_itself_is_no_fall() -> None:
    watch = guard(tolerance=0.25, patience=1, smoothing=0)
    assert [watch.update(value) for value in (1.0, 0.75, 0.74)] == [False, False, True]
    still = guard(tolerance=0, patience=1, smoothing=0.7)
    assert not any(still.update(0.1) for _ in range(50))


def test_a_reading_without_a_value_counts_apart() -> None:
    watch = guard(smoothing=0)
    assert not watch.update(math.nan)
    watch.update(1.0)
    watch.update(0.5)
    assert not watch.update(math.nan)
    assert watch.skipped == 2 and watch.smoothed == 0.5
    assert watch.update(0.5)


@pytest.mark.parametrize("cut", range(8))
def test_resumed_at_any_reading_it_ends_the_same(cut: int) -> None:
    readings = [1.0, 1.2, math.nan, 1.1, 0.9, 1.0, 0.9, 0.8]
    whole, first, second = guard(), guard(), guard()
    expected = [whole.update(value) for value in readings]
    found = [first.update(value) for value in readings[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += [second.update(value) for value in readings[cut:]]
    assert found == expected
    assert second.state_dict() == whole.state_dict()


def test_another_state_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no state"):
        guard().load_state_dict({"loss": 1.0})


def test_a_measure_is_the_mean_of_what_can_be_scored() -> None:
    images = torch.tensor([0.2, 0.4, 0.9]).view(3, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    images[2, 0, 0, 0] = math.nan
    assert guard().measure(images, RewardContext()) == pytest.approx(0.3)
    assert math.isnan(guard().measure(images[2:], RewardContext()))


def test_what_is_optimised_cannot_be_held_out() -> None:
    psnr = build_reward("psnr")
    with pytest.raises(InvalidInputError, match="psnr is optimised"):
        HeldOutGuard(psnr, RewardMix([(psnr, 1.0)]))


@pytest.mark.parametrize("wrong", [{"tolerance": -1.0}, {"tolerance": math.nan}, {"patience": 0}, {"smoothing": 1.0}])
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="a guard takes"):
        guard(**wrong)  # type: ignore[arg-type]
