"""Objectives, SDE steps and advantages against numbers worked out by hand; each comment holds the whole sum."""

import math

import pytest
import torch
from torch import Tensor

from prefrestore.models.texture import sampler
from prefrestore.preference.advantages import group_advantages
from prefrestore.preference.objectives import gaussian_kl, grpo_loss, nft_loss, old_policy_decay


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_nft_loss_and_its_gradient() -> None:
    # b = 1/2, A_max = 4, lambda = 1/10.
    # Sample 1: t = 1/2, x_t = (1,2), x_0 = (2,0), v_old = (0,2), v = (2,2), v_ref = (1,2), A = 2.
    #   r = (2/4)/2 + 1/2 = 3/4
    #   v+ = 1/2 (0,2) + 1/2 (2,2) = (1,2)      x_t - t v+ - x_0 = (1-1/2-2, 2-1-0) = (-3/2, 1)
    #   v- = 3/2 (0,2) - 1/2 (2,2) = (-1,2)     x_t - t v- - x_0 = (1+1/2-2, 2-1-0) = (-1/2, 1)
    #   l+ = ((9/4 + 1)/2) / ((3/2 + 1)/2) = (13/8) / (5/4) = 13/10
    #   l- = ((1/4 + 1)/2) / ((1/2 + 1)/2) = (5/8) / (3/4) = 5/6
    #   policy = 4 (3/4 * 13/10 + 1/4 * 5/6) / (1/2) = 8 (39/40 + 5/24) = 142/15
    #   dl+/dv = (2/2) res+ * (-t b) / (5/4) = (-3/2,1) * (-1/4) * 4/5 = (3/10, -1/5)
    #   dl-/dv = (2/2) res- * (+t b) / (3/4) = (-1/2,1) * (1/4) * 4/3 = (-1/6, 1/3)
    #   dpolicy/dv = 8 (3/4 (3/10,-1/5) + 1/4 (-1/6,1/3)) = (22/15, -8/15)
    #   kl = ((2-1)^2 + 0)/2 = 1/2,             dkl/dv = (2/2) (1,0) = (1,0)
    # Sample 2: t = 1, x_t = (1,-1), x_0 = (0,0), v = v_old = (1,0), v_ref = (1,2), A = -8.
    #   r = clip(-2,-1,1)/2 + 1/2 = 0, so only l- counts; v- = (1,0), residual (0,-1), l- = (1/2)/(1/2) = 1
    #   policy = 4 * 1 / (1/2) = 8;             dpolicy/dv = 8 (0,-1) * (1 * 1/2) / (1/2) = (0,-8)
    #   kl = (0 + 4)/2 = 2,                     dkl/dv = (0,-2)
    # Loss = (142/15 + 8)/2 + (1/10)(1/2 + 2)/2 = 131/15 + 1/8. Gradients: half of dpolicy/dv + (1/10) dkl/dv.
    velocity = tensor([2, 2], [1, 0]).requires_grad_()
    loss, parts = nft_loss(
        velocity,
        velocity_old=tensor([0, 2], [1, 0]),
        velocity_reference=tensor([1, 2], [1, 2]),
        x_t=tensor([1, 2], [1, -1]),
        x_0=tensor([2, 0], [0, 0]),
        t=tensor(0.5, 1),
        advantage=tensor(2, -8),
        beta=0.5,
        advantage_clip=4.0,
        kl_weight=0.1,
    )
    assert loss.item() == pytest.approx(131 / 15 + 1 / 8, rel=1e-12)
    assert parts["policy"].item() == pytest.approx(131 / 15, rel=1e-12)
    assert parts["kl"].item() == pytest.approx(5 / 4, rel=1e-12)
    # old_deviation: (2-0)^2 over two dimensions and two samples; negative: (5/6 + 1)/2.
    assert parts["old_deviation"].item() == pytest.approx(1, rel=1e-12)
    assert parts["negative"].item() == pytest.approx(11 / 12, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, velocity)
    expected = tensor([11 / 15 + 1 / 20, -4 / 15], [0, -4 - 1 / 10])
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-15)


def test_nft_loss_of_a_perfect_prediction_has_a_floor_under_its_denominator() -> None:
    # x_t - t v = x_0 exactly on both sides (v = v_old): 0 / max(0, 1e-5) = 0, and a gradient of 0 rather than NaN.
    velocity = tensor([1, 1]).requires_grad_()
    x_t, x_0, t = tensor([1, 2]), tensor([0.5, 1.5]), tensor(0.5)
    old = velocity.detach()
    loss, _ = nft_loss(velocity, old, old, x_t, x_0, t, tensor(1))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, velocity)[0].tolist() == [[0, 0]]


def test_grpo_loss_clips_only_what_would_go_too_far() -> None:
    # c = 0.1, so ratios are held in [0.9, 1.1]:
    #   ratio 1.2, A  1: min( 1.2,  1.1) =  1.1  clipped, no gradient
    #   ratio 0.7, A -2: min(-1.4, -1.8) = -1.8  clipped, no gradient
    #   ratio 1.2, A -1: min(-1.2, -1.1) = -1.2  free: d loss / d log_prob = -ratio A / 4 =  0.3
    #   ratio 0.7, A  1: min( 0.7,  0.9) =  0.7  free: -0.7/4 = -0.175
    # policy = -(1.1 - 1.8 - 1.2 + 0.7)/4 = 0.3; kl = 0.4/4 = 0.1; loss = 0.3 + 0.5 * 0.1.
    old = tensor(-1, 0, 1, 2)
    log_prob = (old + tensor(1.2, 0.7, 1.2, 0.7).log()).requires_grad_()
    loss, parts = grpo_loss(
        log_prob, old, tensor(1, -2, -1, 1), clip_range=0.1, kl=tensor(0.1, 0.3, 0, 0), kl_weight=0.5
    )
    assert loss.item() == pytest.approx(0.35, rel=1e-12)
    assert {name: round(part.item(), 12) for name, part in parts.items()} == {
        "policy": 0.3,
        "kl": 0.1,
        "ratio": 0.95,
        "clipped": 0.5,
    }
    (gradient,) = torch.autograd.grad(loss, log_prob)
    assert torch.allclose(gradient, tensor(0, 0, 0.3, -0.175), rtol=1e-12, atol=1e-15)


def test_gaussian_kl() -> None:
    # Sample 1: ((1-0)^2 + (3-1)^2)/2 / (2 * 0.5^2) = 2.5/0.5 = 5; sample 2: equal means, 0.
    kl = gaussian_kl(tensor([1, 3], [4, 4]), tensor([0, 1], [4, 4]), tensor([0.5], [2]))
    assert kl.tolist() == [5, 0]
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(tensor(1, 3), 0.5), normal(tensor(0, 1), 0.5)).mean()
    assert kl[0].item() == pytest.approx(exact.item())


def test_sde_step_by_hand() -> None:
    # Flow-GRPO's own source: t = 1/2, t' = 1/4, eta = 1, m = 0, s = 1, x = 2, v = 1. g = sqrt(1/1) = 1, dt = -1/4.
    #   mean = 2 (1 + 1/(2 * 1/2) * -1/4) + 1 (1 + 1 * 1/2 / (2 * 1/2)) * -1/4 = 3/2 - 3/8 = 9/8;  std = 1 * 1/2
    # A posterior mean's: m = 1, s = 1/2. x + (1-t) v - m = 3/2 and eta^2/(2(1-t)) = 1:
    #   mean = 2 - 1/4 (1 + 3/2) = 11/8;  std = 1/2 * 1/2 = 1/4
    # At t = 1, t' = 3/4, eta = 1/2: 1 - t' = 1/4 stands in for 1 - t. m = 0, s = 1, x = 1, v = 2:
    #   mean = 1 - 1/4 (2 + 1/4 / (2 * 1/4) * (1 + 0 * 2)) = 3/8;  std = 1/2 sqrt(1 / (1/4) * 1/4) = 1/2
    half, quarter = tensor(0.5), tensor(0.25)
    for start, scale, expected in ((0.0, 1.0, (9 / 8, 1 / 2)), (1.0, 0.5, (11 / 8, 1 / 4))):
        moments = sampler.sde_moments(tensor([2]), tensor([1]), half, quarter, start=start, noise_scale=scale, eta=1.0)
        assert [float(moment) for moment in moments] == pytest.approx(expected, rel=1e-12)
    moments = sampler.sde_moments(
        tensor([1]), tensor([2]), tensor(1), tensor(0.75), start=0.0, noise_scale=1.0, eta=0.5
    )
    assert [float(moment) for moment in moments] == pytest.approx((3 / 8, 1 / 2), rel=1e-12)
    # One standard deviation (1/4) from the mean 11/8: log p = -1/2 + log 4 - log(2 pi)/2.
    log_prob = sampler.gaussian_log_prob(tensor([13 / 8]), tensor([11 / 8]), tensor([1 / 4]))
    assert log_prob.item() == pytest.approx(-0.5 + math.log(4) - math.log(2 * math.pi) / 2, rel=1e-12)


def test_sde_step_is_flow_grpos_formula_for_a_source_of_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    t, t_next, eta = torch.linspace(0.9, 0.1, 5).double(), torch.linspace(0.8, 0.0, 5).double(), 0.7
    mean, std = sampler.sde_moments(x, v, t, t_next, start=0.0, noise_scale=1.0, eta=eta)
    t, dt = t[:, None], (t_next - t)[:, None]
    s = (t / (1 - t)).sqrt() * eta
    expected = x * (1 + s**2 / (2 * t) * dt) + v * (1 + s**2 * (1 - t) / (2 * t)) * dt
    assert torch.allclose(mean, expected, rtol=1e-12) and torch.allclose(std, s * (-dt).sqrt(), rtol=1e-12)


@pytest.mark.parametrize("t", [1.0, 0.75, 0.25])
def test_grpo_log_probability_is_torchs(t: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, v, m, noise = (torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(4))
    now, then = tensor(t, t), tensor(t - 0.2, t - 0.1)
    source = {"start": m, "noise_scale": 0.3, "eta": 0.7}
    x_next, log_prob = sampler.sde_step(x, v, now, then, noise=noise, **source)
    mean, std = sampler.sde_moments(x, v, now, then, **source)
    exact = torch.distributions.Normal(mean, std.expand_as(mean)).log_prob(x_next).mean((1, 2, 3))
    assert torch.allclose(log_prob, exact, rtol=1e-12)


# Two LQ images, 3 and 7, with the same caption: image 7 is the easier one.
BATCH = [
    {"image": 7, "caption": "a man who smiles", "reward": 7.0},
    {"image": 3, "caption": "a man who smiles", "reward": 1.0},
    {"image": 3, "caption": "a man who smiles", "reward": 3.0},
    {"image": 7, "caption": "a man who smiles", "reward": 9.0},
]


def test_advantages_are_grouped_by_lq_image_and_not_by_caption() -> None:
    # Means of the images: 8 and 2; deviations -1, -1, +1, +1. Mean of all: 5, so the batch's variance is
    # (4 + 16 + 4 + 16)/4 = 10 and A = +-1 / (sqrt(10) + 1e-4) = +-0.31622776/1.0000316 = +-0.31621776.
    rewards = torch.tensor([sample["reward"] for sample in BATCH], dtype=torch.float64)
    result = group_advantages(rewards, torch.tensor([sample["image"] for sample in BATCH]))
    assert result.values.tolist() == pytest.approx([-0.31621776, -0.31621776, 0.31621776, 0.31621776], abs=1e-8)
    assert result.valid.all() and result.skipped == 0
    # By caption they would be one group of mean 5: the better restoration of image 3 would be (3-5)/sqrt(10), bad.
    captions = sorted({sample["caption"] for sample in BATCH})
    shared = group_advantages(rewards, torch.tensor([captions.index(sample["caption"]) for sample in BATCH]))
    assert shared.values[2].item() == pytest.approx(-2 / (math.sqrt(10) + 1e-4)) and result.values[2] > 0


def test_a_missing_reward_is_left_out_of_mean_and_spread() -> None:
    # The batch above, with a restoration of image 3 that has no reward, and an image 5 of which one of two has one.
    nan = math.nan
    rewards = tensor(7, 1, nan, 3, nan, 4, 9)
    result = group_advantages(rewards, torch.tensor([7, 3, 3, 3, 5, 5, 7]))
    assert result.valid.tolist() == [True, True, False, True, False, False, True] and result.skipped == 3
    assert result.values[~result.valid].isnan().all()
    expected = [-0.31621776, -0.31621776, 0.31621776, 0.31621776]
    assert result.values[result.valid].tolist() == pytest.approx(expected, abs=1e-8)


def test_the_old_policy_slows_down() -> None:
    # d = min(0.001 step, 0.5): the old policy is replaced at step 0 and half replaced from step 500 on.
    assert [old_policy_decay(step) for step in (0, 1, 250, 500, 5000)] == [0.0, 0.001, 0.25, 0.5, 0.5]
    assert old_policy_decay(3, rate=0.1, most=0.2) == 0.2
