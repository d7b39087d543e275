"""The times visited, Euler's order on a flow with a closed form, and guidance."""

import math

import pytest
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.texture import sampler


def test_times_are_the_papers() -> None:
    assert sampler.flow_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert sampler.flow_times(1) == [1.0, 0.0]
    with pytest.raises(InvalidInputError):
        sampler.flow_times(0)


def gaussian_velocity(std: float) -> sampler.Velocity:
    """The exact velocity when x_0 ~ N(0, std^2) and x_1 ~ N(0, 1) are independent: ``x * (t - (1-t) s^2) / var_t``."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        variance = t**2 + (1 - t) ** 2 * std**2
        return x * (t - (1 - t) * std**2) / variance

    return velocity


def test_euler_converges_with_order_one_on_a_gaussian_flow() -> None:
    x = torch.tensor([[1.0]], dtype=torch.float64)
    # The exact flow maps quantile to quantile: 1 standard deviation of N(0,1) to 1 of N(0, 0.5^2).
    errors = [abs(sampler.euler(gaussian_velocity(0.5), x, sampler.flow_times(n)).item() - 0.5) for n in (64, 128, 256)]
    orders = [math.log2(a / b) for a, b in zip(errors[:-1], errors[1:], strict=True)]
    assert all(0.9 < order < 1.1 for order in orders), orders


def test_a_straight_flow_needs_one_step() -> None:
    x_0, x_1 = torch.tensor([[3.0]]), torch.tensor([[-1.0]])
    for steps in (1, 3):
        end = sampler.euler(lambda x, t: x_1 - x_0, x_1, sampler.flow_times(steps))
        assert torch.allclose(end, x_0, atol=1e-6)


def test_the_callback_sees_every_step_and_may_change_the_latents() -> None:
    seen = []

    def callback(index: int, t: float, x: Tensor) -> Tensor:
        seen.append((index, t))
        return x + 1

    end = sampler.euler(lambda x, t: torch.zeros_like(x), torch.zeros(1, 1), sampler.flow_times(2), callback)
    assert seen == [(0, 0.5), (1, 0.0)] and end.item() == 2


def test_guidance_by_hand_and_without_a_second_pass_at_one() -> None:
    calls = []

    def unconditional(x: Tensor, t: Tensor) -> Tensor:
        calls.append(1)
        return torch.full_like(x, 1.0)

    x, t = torch.zeros(1, 1), torch.ones(1)
    conditional = lambda x, t: torch.full_like(x, 3.0)  # noqa: E731
    assert sampler.guided(conditional, unconditional, 1.0)(x, t).item() == 3.0
    assert not calls
    assert sampler.guided(conditional, unconditional, 2.0)(x, t).item() == 5.0
