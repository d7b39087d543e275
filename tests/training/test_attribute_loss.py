"""The attribute loss on a made-up network: zero pull where the picture says what the true face says."""

import torch
from torch import Tensor, nn

from prefrestore.metrics.attributes import AttributeReader
from prefrestore.training.attribute_loss import AttributeLoss


class Brightness(nn.Module):
    """Stands for the networks: the mean of the upper and of the lower half."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,S,S) -> (B,2)."""
        half = images.shape[-2] // 2
        return torch.stack([images[:, :, :half].mean((1, 2, 3)), images[:, :, half:].mean((1, 2, 3))], dim=1)


def loss() -> AttributeLoss:
    made = AttributeLoss.__new__(AttributeLoss)
    nn.Module.__init__(made)
    made.network = Brightness()
    weight = torch.tensor([[8.0, -8.0], [0.0, 0.0]])
    made.reader = AttributeReader({"glasses": ("none", "glasses")}, {"glasses": (weight, torch.zeros(2))})
    return made


def test_it_pulls_towards_what_the_true_face_says() -> None:
    asked, bright = loss(), torch.full((2, 3, 8, 8), 0.5)
    dark = (-bright).requires_grad_()
    same = asked(bright, bright)
    other = asked(dark, bright)
    assert other > same + 1
    (gradient,) = torch.autograd.grad(other, dark)
    assert (gradient[:, :, :4] < 0).all() and torch.count_nonzero(gradient[:, :, 4:]) == 0  # brighter, above alone


def test_the_true_face_gets_no_gradient() -> None:
    target = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    loss()(torch.zeros(1, 3, 8, 8, requires_grad=True), target).backward()
    assert target.grad is None
