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


def told(*rows: list[float]) -> dict[str, Tensor]:
    return {"glasses": torch.tensor(rows)}


def test_it_pulls_towards_what_is_told() -> None:
    asked, dark = loss(), torch.full((2, 3, 8, 8), -0.5, requires_grad=True)
    assert asked(dark, told([0, 1], [0, 1])) < 0.01  # a dark face is read as one with glasses
    other = asked(dark, told([1, 0], [1, 0]))
    assert other > 1
    (gradient,) = torch.autograd.grad(other, dark)
    assert (gradient[:, :, :4] < 0).all() and torch.count_nonzero(gradient[:, :, 4:]) == 0  # brighter, above alone


def test_what_is_not_told_does_not_count() -> None:
    asked, faces = loss(), torch.full((2, 3, 8, 8), -0.5, requires_grad=True)
    assert asked(faces, told([0, 0], [0, 0])) == 0
    both = asked(faces, told([1, 0], [0, 0]))
    assert torch.allclose(both, asked(faces[:1], told([1, 0])))
    (gradient,) = torch.autograd.grad(both, faces)
    assert torch.count_nonzero(gradient[1]) == 0


def test_a_true_face_tells_all_of_itself_and_gets_no_gradient() -> None:
    asked, target = loss(), torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    truth = asked.truth(target)
    assert torch.allclose(truth["glasses"].sum(1), torch.ones(1)) and not truth["glasses"].requires_grad
    assert asked(target, truth) < asked(-target, truth) - 1
