"""The loss of likeness: nothing for the same picture in any view, something for another, with a gradient."""

import pytest
import torch

from prefrestore.metrics.sface import SFaceNetwork
from prefrestore.training.likeness import LikenessLoss, random_views


def faces(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_pair_is_seen_in_one_view_and_views_differ() -> None:
    same = random_views(faces(0), faces(0), torch.Generator().manual_seed(1))
    other = random_views(faces(0), faces(0), torch.Generator().manual_seed(2))
    assert torch.equal(*same) and same[0].shape == (2, 3, 112, 112)
    assert not torch.allclose(same[0], other[0], atol=0.1)


def test_cut_off_margins_leave_the_views_where_they_were() -> None:
    smooth = torch.nn.functional.avg_pool2d(faces(0), 5, 1, 2)
    whole, cut = (
        random_views(x, x, torch.Generator().manual_seed(1), margin=m)[0]
        for x, m in ((smooth, 0), (smooth[..., 6:-6, 6:-6], 6))
    )
    assert (whole - cut).abs().mean() < 0.02


def test_a_face_that_is_its_target_loses_nothing() -> None:
    loss, generator = LikenessLoss(SFaceNetwork()), torch.Generator().manual_seed(0)
    assert all(value.item() == pytest.approx(0, abs=1e-5) for value in loss(faces(0), faces(0), generator).values())
    images = faces(1).requires_grad_()
    losses = loss(images, faces(0), generator)
    assert losses["identity"].item() > 0.01 and losses["features"].item() > 0.01
    sum(losses.values()).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
