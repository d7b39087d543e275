"""The path's formulas against numbers worked out by hand."""

import torch

from prefrestore.texture import flow


def test_a_hand_made_point_of_the_path() -> None:
    x_0 = torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1)
    start = torch.tensor([4.0, 1.0]).reshape(2, 1, 1, 1)
    noise = torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1)
    t = torch.tensor([0.25, 0.5])
    x_1 = flow.source(start, noise, 0.5)
    assert x_1.flatten().tolist() == [3.5, 2.0]
    x_t = flow.interpolate(x_0, x_1, t)
    assert x_t.flatten().tolist() == [0.75 * 2 + 0.25 * 3.5, 0.5 * -1 + 0.5 * 2]
    velocity = flow.velocity_target(x_0, x_1)
    assert velocity.flatten().tolist() == [1.5, 3.0]
    assert torch.allclose(flow.clean_estimate(x_t, velocity, t), x_0)


def test_noise_alone_is_the_papers_source() -> None:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flow.source(torch.zeros_like(noise), noise, 1.0), noise)


def test_preconditioning_by_hand_and_at_both_ends() -> None:
    start, x_t, output = (torch.full((1, 1, 1, 1), value) for value in (1.0, 3.0, 2.0))
    # sigma = s = 1, t = 1/2: variance 1/2, gain 1, error sqrt(1/2) = c, so x_0 = 1 + 2 + 2 sqrt(1/2).
    t = torch.tensor([0.5])
    velocity = flow.preconditioned_velocity(output, x_t, start, t, noise_scale=1.0, residual_std=1.0)
    assert torch.allclose(flow.clean_estimate(x_t, velocity, t), torch.tensor(3 + 2 * 0.5**0.5))
    # At t = 1 the noise is gone whatever it was: x_0 = m + sigma output.
    t = torch.tensor([1.0])
    velocity = flow.preconditioned_velocity(output, x_t, start, t, noise_scale=0.3, residual_std=0.5)
    assert torch.allclose(flow.clean_estimate(x_t, velocity, t), torch.tensor(1 + 0.5 * 2))
    # Near t = 0 the point is the clean latent already.
    t = torch.tensor([1e-4])
    velocity = flow.preconditioned_velocity(output, x_t, start, t, noise_scale=0.3, residual_std=0.5)
    assert torch.allclose(flow.clean_estimate(x_t, velocity, t), torch.tensor(3.0), atol=1e-3)


def test_preconditioning_is_the_optimal_linear_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    sigma, s, time = 0.5, 0.3, 0.6
    residual = sigma * torch.randn(1, 1, 400, 400, generator=generator)
    noise = torch.randn(residual.shape, generator=generator)
    start, t = torch.full_like(residual, 2.0), torch.tensor([time])
    x_t = flow.interpolate(start + residual, flow.source(start, noise, s), t)
    silent = torch.zeros_like(x_t)
    velocity = flow.preconditioned_velocity(silent, x_t, start, t, noise_scale=s, residual_std=sigma)
    error = flow.clean_estimate(x_t, velocity, t) - (start + residual)
    expected = sigma * s * time / ((1 - time) ** 2 * sigma**2 + time**2 * s**2) ** 0.5
    assert abs(error.std().item() - expected) < 0.01 * expected
    assert abs((error * (x_t - start)).mean().item()) < 1e-3  # nothing linear is left to gain
