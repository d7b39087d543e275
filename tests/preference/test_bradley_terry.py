"""The loss, its gradient, calibration and intervals against numbers worked out by hand; the diagram's marks."""

import math

import numpy as np
import pytest
import torch

from prefrestore.errors import InvalidInputError
from prefrestore.preference.bradley_terry import bradley_terry_loss, reliability, wilson_interval
from prefrestore.preference.reliability import reliability_diagram


def test_the_loss_and_its_gradient_by_hand() -> None:
    chosen = torch.tensor([1.0, 0.0], requires_grad=True)
    rejected = torch.tensor([0.0, 2.0], requires_grad=True)
    loss = bradley_terry_loss(chosen, rejected)
    # -log sigmoid(1) = 0.3132617, -log sigmoid(-2) = 2.1269280
    assert loss.item() == pytest.approx((0.3132617 + 2.1269280) / 2, abs=1e-6)
    loss.backward()
    # d/ds_chosen = -sigmoid(s_rejected - s_chosen) / 2, and the opposite for the rejected one
    expected = torch.tensor([-0.26894142 / 2, -0.88079708 / 2])
    assert chosen.grad is not None and rejected.grad is not None
    assert torch.allclose(chosen.grad, expected) and torch.allclose(rejected.grad, -expected)


def test_a_tie_pulls_the_scores_together() -> None:
    apart = torch.tensor([2.0], requires_grad=True)
    loss = bradley_terry_loss(apart, torch.zeros(1), torch.tensor([0.5]))
    # -0.5 log sigmoid(2) - 0.5 log sigmoid(-2) = (0.1269280 + 2.1269280) / 2
    assert loss.item() == pytest.approx(1.1269280, abs=1e-6)
    loss.backward()
    assert apart.grad is not None and apart.grad.item() == pytest.approx(0.88079708 - 0.5, abs=1e-6)
    assert bradley_terry_loss(torch.zeros(1), torch.zeros(1), torch.tensor([0.5])).item() == pytest.approx(math.log(2))


def test_a_choice_of_the_second_is_the_first_turned_round() -> None:
    first, second = torch.tensor([0.3, -1.0]), torch.tensor([1.2, 4.0])
    assert torch.allclose(bradley_terry_loss(first, second, torch.zeros(2)), bradley_terry_loss(second, first))


def test_far_scores_stay_finite() -> None:
    assert bradley_terry_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)


def test_calibration_by_hand() -> None:
    six, nine = math.log(0.6 / 0.4), math.log(0.9 / 0.1)
    table = reliability([six, -six, nine, nine, nine, -nine], bins=2)
    assert table.counts == (2, 4)
    assert table.confidence == pytest.approx((0.6, 0.9))
    assert table.right == pytest.approx((0.5, 0.75))
    assert table.accuracy == pytest.approx(4 / 6)
    assert table.mean_confidence == pytest.approx(0.8)
    assert table.expected_calibration_error == pytest.approx((2 * 0.1 + 4 * 0.15) / 6)


def test_equal_scores_are_half_right_and_certainty_falls_in_the_last_bin() -> None:
    table = reliability([0.0, 800.0], bins=10)
    assert table.counts == (1, *[0] * 8, 1)
    assert table.accuracy == pytest.approx(0.75)
    assert math.isnan(table.right[4]) and table.expected_calibration_error == pytest.approx(0)


@pytest.mark.parametrize("margins", [[], [math.nan], [1.0, math.inf]])
def test_margins_that_are_no_numbers_are_refused(margins: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="finite"):
        reliability(margins)


def test_wilson_by_hand() -> None:
    # n = 10, half right: centre 0.5, half width 1.96 sqrt(0.025 + 0.009604) / 1.38416 = 0.26341
    assert wilson_interval(0.5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    low, high = wilson_interval(1.0, 20)
    assert high == pytest.approx(1) and low == pytest.approx(20 / 23.8416, abs=1e-4)


def test_the_diagram_marks_each_filled_bin() -> None:
    picture = np.asarray(reliability_diagram(reliability([2.0] * 30 + [-0.5] * 10), "title"))
    blue = (picture == (30, 90, 170)).all(-1)
    # Two clusters of marks: surely right at the top, wrong below.
    assert blue[:120].any() and blue[330:].any()
    assert not (np.asarray(reliability_diagram(reliability([2.0] * 30), "title"))[330:] == (30, 90, 170)).all(-1).any()
