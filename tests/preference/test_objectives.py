"""What the objectives do to a policy, and what they refuse; their numbers are in tests/golden."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.models.texture import sampler
from prefrestore.models.texture.flow import clean_estimate, interpolate
from prefrestore.preference import objectives


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, x_0, t and a velocity of a policy that is off."""
    generator = torch.Generator().manual_seed(seed)
    x_0, x_1, off = (torch.randn(6, 4, 3, 3, generator=generator) for _ in range(3))
    t = torch.rand(6, generator=generator) * 0.9 + 0.1
    return interpolate(x_0, x_1, t), x_0, t, x_1 - x_0 + 0.3 * off


@pytest.mark.parametrize(("advantage", "nearer"), [(3.0, True), (-3.0, False)])
def test_nft_moves_the_clean_estimate_towards_good_samples_and_away_from_bad_ones(
    advantage: float, nearer: bool
) -> None:
    x_t, x_0, t, old = batch()
    velocity = old.clone().requires_grad_()
    loss, _ = objectives.nft_loss(velocity, old, old, x_t, x_0, t, torch.full((6,), advantage))
    (gradient,) = torch.autograd.grad(loss, velocity)

    def distance(v: Tensor) -> Tensor:
        return ((clean_estimate(x_t, v, t) - x_0) ** 2).flatten(1).mean(1)

    moved = distance(old - 0.1 * gradient)
    assert ((moved < distance(old)) == nearer).all()


def test_nft_leaves_the_policy_alone_without_an_advantage() -> None:
    x_t, x_0, t, old = batch()
    velocity = old.clone().requires_grad_()
    loss, parts = objectives.nft_loss(velocity, old, old, x_t, x_0, t, torch.zeros(6))
    (gradient,) = torch.autograd.grad(loss, velocity)
    assert gradient.abs().max() < 1e-6 and parts["old_deviation"] == 0 and not parts["policy"].requires_grad


def test_nft_gives_gradients_to_the_trained_policy_only() -> None:
    x_t, x_0, t, old = batch()
    tensors = [x.clone().requires_grad_() for x in (old + 0.1, old, old, x_0)]
    velocity, velocity_old, velocity_reference, sampled = tensors
    advantage = torch.ones(6, requires_grad=True)
    loss, _ = objectives.nft_loss(velocity, velocity_old, velocity_reference, x_t, sampled, t, advantage)
    loss.backward()
    assert velocity.grad is not None and velocity.grad.abs().sum() > 0
    assert all(x.grad is None for x in (velocity_old, velocity_reference, sampled, advantage))


def test_nft_mixes_half_precision_velocities_in_full_precision() -> None:
    x_t, x_0, t, old = batch()
    old = old.bfloat16()
    ours, _ = objectives.nft_loss(old + 0.125, old, old, x_t, x_0, t, torch.ones(6))
    full, _ = objectives.nft_loss((old + 0.125).float(), old.float(), old.float(), x_t, x_0, t, torch.ones(6))
    assert ours.dtype == torch.float32 and torch.equal(ours, full)


def test_grpo_raises_the_probability_of_a_good_step() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    old = torch.randn(2, 4, 3, 3, generator=generator)
    t, t_next = torch.full((2,), 0.5), torch.full((2,), 0.25)
    step: dict[str, float] = {"start": 0.0, "noise_scale": 1.0, "eta": 0.7}
    x_next, old_log_prob = sampler.sde_step(x, old, t, t_next, noise=noise, **step)
    velocity = old.clone().requires_grad_()
    log_prob = sampler.gaussian_log_prob(x_next, *sampler.sde_moments(x, velocity, t, t_next, **step))
    loss, parts = objectives.grpo_loss(log_prob, old_log_prob, torch.tensor([1.0, -1.0]), clip_range=1e-4)
    assert parts["ratio"] == 1 and parts["clipped"] == 0 and parts["kl"] == 0
    (gradient,) = torch.autograd.grad(loss, velocity)
    after = sampler.gaussian_log_prob(x_next, *sampler.sde_moments(x, old - 0.1 * gradient, t, t_next, **step))
    assert after[0] > old_log_prob[0] and after[1] < old_log_prob[1]


def test_reward_gradient_by_hand() -> None:
    # Rewards 1, 2, (none), 3 standardised by centre 1 and scale 2: loss = -(2 - 1)/2 + 0.1 * 0.5; gradient -1/(3 * 2).
    rewards = torch.tensor([1.0, 2.0, math.nan, 3.0], requires_grad=True)
    loss, parts = objectives.reward_gradient_loss(
        rewards, centre=1.0, scale=2.0, kl=torch.tensor([0.0, 1.0]), kl_weight=0.1
    )
    assert loss.item() == pytest.approx(-0.45) and parts["reward"] == 2 and parts["skipped"] == 1
    (gradient,) = torch.autograd.grad(loss, rewards)
    assert gradient.tolist() == pytest.approx([-1 / 6, -1 / 6, 0, -1 / 6])


@pytest.mark.parametrize(
    "call",
    [
        lambda: objectives.reward_gradient_loss(torch.tensor([math.nan])),
        lambda: objectives.reward_gradient_loss(torch.tensor([1.0]), scale=0.0),
        lambda: objectives.update_average([torch.zeros(2)], [torch.zeros(3)], 0.5),
        lambda: objectives.update_average([torch.zeros(2)], [], 0.5),
        lambda: objectives.update_average([torch.zeros(2)], [torch.zeros(2)], 1.5),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidInputError):
        call()


def test_average_by_hand_in_place() -> None:
    target, source = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        for parameter, value in zip([*target.parameters(), *source.parameters()], [1.0, 2.0, 3.0, 6.0], strict=True):
            parameter.fill_(value)
    weight = target.weight
    objectives.update_average(target.parameters(), source.parameters(), 0.75)
    # 3/4 * 1 + 1/4 * 3 = 1.5 and 3/4 * 2 + 1/4 * 6 = 3.
    assert target.weight is weight and (weight.item(), target.bias.item()) == (1.5, 3.0)
    objectives.update_average(target.parameters(), source.parameters(), 0.0)
    assert (target.weight.item(), target.bias.item()) == (3.0, 6.0)
