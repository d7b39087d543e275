"""The judge of latents: its losses by hand, what it trains and what it leaves alone."""

import math

import torch
from torch import Tensor, nn

from prefrestore.training.discriminator import LatentDiscriminator, adversarial_losses, relativistic_loss


class Brightness(nn.Module):
    """Calls the brighter latent the cleaner one."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, latents: Tensor, start: Tensor) -> Tensor:
        return self.gain * (latents - start).mean(dim=(1, 2, 3), keepdim=True)


def test_the_relativistic_loss_by_hand() -> None:
    assert math.isclose(relativistic_loss(torch.tensor([1.0]), torch.tensor([0.0])).item(), math.log(1 + math.exp(-1)))


def test_the_direction_points_against_what_the_judge_likes() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, restored, start = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    judge = Brightness()
    loss, direction = adversarial_losses(judge, clean, restored, start, generator, jitter=1e-3)
    # A step against the gradient makes the latents brighter; each sample's four numbers have length 1.
    assert torch.allclose(direction, torch.full_like(direction, -0.5))
    loss.backward()
    # d softplus(-2 g) / dg at g = 2 per unit of brightness difference, plus the penalty's share, which is positive.
    assert judge.gain.grad is not None and judge.gain.grad > -1 / (1 + math.exp(2)) - 1e-4
    assert not restored.requires_grad and restored.grad is None


def test_a_judge_that_answers_alike_everywhere_has_no_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    judge = LatentDiscriminator(3, widths=(8, 8))
    nn.init.zeros_(judge.layers[-1].weight)
    latents = torch.randn(2, 3, 8, 8, generator=generator)
    loss, direction = adversarial_losses(judge, latents, latents + 1, latents, generator)
    assert math.isclose(loss.item(), math.log(2), rel_tol=1e-6)
    assert torch.equal(direction, torch.zeros_like(direction))


def test_a_judge_learns_what_is_clean() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    judge = LatentDiscriminator(2, widths=(8, 8))
    optimizer = torch.optim.Adam(judge.parameters(), lr=3e-3)
    start = torch.zeros(8, 2, 8, 8)
    for _ in range(60):
        clean, restored = torch.randn(2, 8, 2, 8, 8, generator=generator) * torch.tensor([1.0, 0.3]).view(2, 1, 1, 1, 1)
        loss, _ = adversarial_losses(judge, clean, restored, start, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clean, restored = torch.randn(8, 2, 8, 8, generator=generator), 0.3 * torch.randn(8, 2, 8, 8, generator=generator)
    with torch.no_grad():
        right = judge(clean, start).mean(dim=(1, 2, 3)) > judge(restored, start).mean(dim=(1, 2, 3))
    assert right.float().mean() > 0.8
