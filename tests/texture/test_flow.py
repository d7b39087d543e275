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
