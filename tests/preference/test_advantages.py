"""What group advantages refuse, and what they do not depend on."""

import math

import pytest
import torch

from prefrestore.errors import InvalidInputError
from prefrestore.preference.advantages import group_advantages


def test_advantages_of_each_group_sum_to_zero_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, groups = torch.randn(24, generator=generator), torch.arange(24) % 4
    values = group_advantages(rewards, groups).values
    assert all(abs(float(values[groups == g].sum())) < 1e-5 for g in range(4))
    order = torch.randperm(24, generator=generator)
    assert torch.allclose(group_advantages(rewards[order], groups[order]).values, values[order], atol=1e-6)


def test_what_an_image_gives_to_all_its_restorations_does_not_matter() -> None:
    rewards, groups = torch.tensor([1.0, 3.0, 2.0, 6.0]), torch.tensor([0, 0, 1, 1])
    values = group_advantages(rewards, groups).values
    shifted = group_advantages(rewards + torch.tensor([5.0, 5.0, 0.0, 0.0]), groups).values
    # Only the batch's spread moves, so the advantages keep their proportions.
    assert torch.allclose(shifted / shifted[1], values / values[1], atol=1e-6)


def test_equal_rewards_have_no_advantage() -> None:
    assert group_advantages(torch.full((4,), 2.5), torch.tensor([0, 0, 1, 1])).values.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("rewards", "groups", "message"),
    [
        ([1.0, 2.0, 3.0], [0, 0, 8], "group 8 has one restoration"),
        ([1.0, 2.0], [0, 0, 1], "one reward and one group a sample"),
        ([math.nan, 2.0, math.nan, math.nan], [0, 0, 1, 1], "no face of this batch has two"),
    ],
)
def test_bad_batches_are_refused(rewards: list[float], groups: list[int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        group_advantages(torch.tensor(rewards), torch.tensor(groups))


def test_an_infinite_reward_is_left_out_like_a_missing_one() -> None:
    result = group_advantages(torch.tensor([math.inf, 1.0, 3.0]), torch.zeros(3, dtype=torch.long))
    assert result.skipped == 1 and result.values[1] < 0 < result.values[2]
