"""The discriminator of restored latents in training: which of two latents of one degraded face is the clean one?

A loss against one clean picture is least at the average of all that fit, whatever its norm; a discriminator asks for
one of them instead (Goodfellow et al., arXiv 1406.2661). It works on latents: it costs a fraction of a step, and no
decoding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LatentDiscriminator(nn.Module):
    """A small convolutional network on a latent and the posterior mean that it was made from.

    Args:
        channels: C of the latents.
        widths: channels of each resolution, halved between them.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = (48, 96, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2 * channels, widths[0], 3, padding=1)]
        for place, width in enumerate(widths):
            if place:
                layers.append(nn.Conv2d(widths[place - 1], width, 4, stride=2, padding=1))
            layers.append(_Residual(width))
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, latents: Tensor, start: Tensor) -> Tensor:
        """Latents and posterior means (B,C,h,w) -> how clean each place looks, (B,1,h/4,w/4)."""
        return self.layers(torch.cat([latents - start, start], dim=1))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """``mean(softplus(worse - better))``: the paired loss of RpGAN (arXiv 1807.00734, in R3GAN's form, 2501.05441)."""
    return F.softplus(worse - better).mean()


def adversarial_losses(
    discriminator: nn.Module,
    clean: Tensor,
    restored: Tensor,
    start: Tensor,
    generator: torch.Generator,
    *,
    jitter: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """The discriminator's own loss, and the direction in which it would move the restored latents.

    Its penalty is R1 and R2 without second derivatives (arXiv 2501.08316, section 3.4): its answers to clean and to
    restored latents may not change under noise of standard deviation ``jitter``.

    Args:
        clean, restored, start: latents (B,C,h,w); no gradient flows back to them.

    Returns:
        A scalar with a gradient to the discriminator alone, and the gradient of the restorer's loss at ``restored``
        (B,C,h,w), each sample's of length 1.
    """
    restored = restored.detach().requires_grad_()
    pair = torch.cat([clean, restored])
    starts = torch.cat([start, start])
    shaken = pair.detach() + jitter * torch.randn(pair.shape, generator=generator, device=pair.device)
    seen = discriminator(torch.cat([pair, shaken]), torch.cat([starts, starts])).float()
    answers, moved = seen.chunk(2)
    real, fake = answers.chunk(2)
    (direction,) = torch.autograd.grad(relativistic_loss(fake, real), restored, retain_graph=True)
    penalty = F.mse_loss(answers, moved) / jitter**2
    length = direction.float().flatten(1).norm(dim=1).clamp_min(1e-12)
    return relativistic_loss(real, fake) + penalty, direction.float() / length.view(-1, 1, 1, 1)


def pull(direction: Tensor, restored: Tensor, length: Tensor | float) -> Tensor:
    """A loss of value 0 whose gradient at ``restored`` (B,C,h,w) is ``length * direction`` over its element count.

    Args:
        direction: from `adversarial_losses`.
        length: a number, or one a sample (B,1,1,1): that of the gradient of the summed loss it is weighed against.
    """
    moved = (length * direction * restored).sum() / restored.numel()
    return moved - moved.detach()
