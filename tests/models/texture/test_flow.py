"""The path's formulas against numbers worked out by hand."""

import torch

from prefrestore.models.texture import flow, sampler


def test_a_hand_made_point_of_the_path() -> None:
    x_0 = torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1)
    start = torch.tensor([4.0, 1.0]).reshape(2, 1, 1, 1)
    noise = torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1)
    t = torch.tensor([0.25, 0.5])
    x_1 = flow.source(start, noise, 0.5)
    assert x_1.flatten().tolist() == [3.5, 2.0]
    x_t = flow.interpolate(x_0, x_1, t)
    assert x_t.flatten().tolist() == [0.75 * 2 + 0.25 * 3.5, 0.5 * -1 + 0.5 * 2]
    velocity = x_1 - x_0
    assert velocity.flatten().tolist() == [1.5, 3.0]
    assert torch.allclose(flow.clean_estimate(x_t, velocity, t), x_0)


def test_noise_alone_is_the_papers_source() -> None:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flow.source(torch.zeros_like(noise), noise, 1.0), noise)


def test_the_velocity_of_a_clean_estimate_by_hand() -> None:
    start, x_t, output = (torch.full((1, 1, 1, 1), value) for value in (1.0, 3.0, 2.0))
    t = torch.tensor([0.25])
    # x_0 = 1 + 0.5 * 2 = 2, so v = (3 - 2) / 0.25.
    velocity = flow.residual_velocity(output, x_t, start, t, residual_std=0.5)
    assert velocity.item() == 4.0
    assert flow.clean_estimate(x_t, velocity, t).item() == 2.0


def test_the_sources_noise_is_gone_at_the_end_whatever_the_network_says() -> None:
    generator = torch.Generator().manual_seed(0)
    start, noise = (torch.randn(1, 2, 8, 8, generator=generator) for _ in range(2))
    output = torch.randn(1, 2, 8, 8, generator=generator)  # of a network that does not look at x_t

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return flow.residual_velocity(output, x, start, t, residual_std=0.5)

    for steps in (1, 2, 7):
        ended = sampler.euler(velocity, flow.source(start, noise, 0.3), sampler.flow_times(steps))
        assert torch.allclose(ended, start + 0.5 * output, atol=1e-5)
