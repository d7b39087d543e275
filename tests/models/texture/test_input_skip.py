"""What is let through: bands that add up, all or nothing at the ends of the weights, and place by place."""

import torch

from prefrestore.models.texture.input_skip import InputSkip, bands


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def skip(weight: float) -> InputSkip:
    return InputSkip(width=4, first=(weight,) * 5).eval()


def test_the_bands_add_up_and_each_has_its_own_size() -> None:
    parts = bands(pictures(0), 4)
    assert len(parts) == 5 and torch.allclose(sum(parts), pictures(0), atol=1e-6)
    flat = bands(torch.full((1, 3, 32, 32), 0.5), 4)
    assert all(part.abs().max() < 1e-6 for part in flat[:4]) and torch.allclose(flat[4], torch.tensor(0.5))


@torch.no_grad()
def test_weights_of_nothing_and_of_all() -> None:
    restored, lq = pictures(0), pictures(1)
    assert torch.allclose(skip(1e-6)(restored, lq), restored, atol=1e-4)
    assert torch.allclose(skip(1 - 1e-6)(restored, lq), lq, atol=1e-4)


@torch.no_grad()
def test_what_agrees_stays_whatever_the_weights_are() -> None:
    network = skip(0.5)
    torch.nn.init.normal_(network.head[-1].weight)
    assert torch.allclose(network(pictures(0), pictures(0)), pictures(0), atol=1e-6)
    weights = network.weights(pictures(0), pictures(1))
    assert weights.shape == (2, 5, 4, 4) and weights.std() > 0 and (weights > 0).all() and (weights < 1).all()
