import numpy as np
import pytest
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct, pictures


class Mean(ImageReward):
    """The mean of the image, less that of its ground truth."""

    name = "mean"
    needs_reference = True
    differentiable = True

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        assert context.reference is not None
        assert images.isfinite().all() and context.reference.isfinite().all()
        return images.mean((1, 2, 3)) - context.reference.mean((1, 2, 3))


class Told(ImageReward):
    name = "told"
    needs_caption = True

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        assert not torch.is_grad_enabled()
        return images.mean((1, 2, 3))


def grey(*levels: float) -> Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def test_context_repeats_in_groups_and_selects() -> None:
    context = RewardContext(reference=grey(0.1, 0.2), captions=["a", None], lq=grey(0.3, 0.4))
    repeated = context.repeat(3)
    assert repeated.reference is not None and repeated.lq is not None
    torch.testing.assert_close(repeated.reference[:, 0, 0, 0], torch.tensor([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
    torch.testing.assert_close(repeated.lq[:, 0, 0, 0], torch.tensor([0.3, 0.3, 0.3, 0.4, 0.4, 0.4]))
    assert repeated.captions == ["a", "a", "a", None, None, None]
    chosen = repeated.select([5, 0])
    assert chosen.reference is not None
    torch.testing.assert_close(chosen.reference[:, 0, 0, 0], torch.tensor([0.2, 0.1]))
    assert chosen.captions == [None, "a"]
    assert RewardContext().repeat(2) == RewardContext() == RewardContext().select([0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_sample_has_no_score_and_leaves_the_others_alone(bad: float) -> None:
    images, reference = grey(0.5, 0.6, 0.7), grey(0.1, 0.1, 0.1)
    images[0, 1, 2, 3] = bad
    reference[2, 0, 0, 0] = bad
    images.requires_grad_()
    scores = Mean()(images, RewardContext(reference=reference))
    assert scores.isnan().tolist() == [True, False, True]
    assert scores[1].item() == pytest.approx(0.5)
    scores[1].backward()
    assert images.grad is not None and images.grad.isfinite().all()
    torch.testing.assert_close(images.grad[1], torch.full((3, 4, 4), 1 / 48))
    assert images.grad[[0, 2]].abs().max() == 0


def test_gradients_only_where_they_are_asked_for_and_possible() -> None:
    images, context = grey(0.5), RewardContext(reference=grey(0.1), captions=["a face"])
    assert not Mean()(images, context).requires_grad
    assert Mean()(images.requires_grad_(), context).requires_grad
    assert not Told()(images, context).requires_grad


def test_half_precision_images_score_in_single() -> None:
    assert Mean()(grey(0.5).half(), RewardContext(reference=grey(0.1).half())).dtype == torch.float32


def test_what_a_reward_lacks_is_told() -> None:
    with pytest.raises(InvalidInputError, match="mean needs the ground truth"):
        Mean()(grey(0.5), RewardContext())
    with pytest.raises(InvalidInputError, match="of one shape"):
        Mean()(grey(0.5), RewardContext(reference=grey(0.5, 0.5)))
    with pytest.raises(InvalidInputError, match="told needs a caption"):
        Told()(grey(0.5), RewardContext())
    with pytest.raises(InvalidInputError, match="told needs a caption"):
        Told()(grey(0.5), RewardContext(captions=["a", "b"]))
    for wrong in (grey(0.5)[0], grey(0.5)[:, :2], grey(0.5).byte()):
        with pytest.raises(InvalidInputError, match=r"\(B,3,H,W\)"):
            Mean()(wrong, RewardContext(reference=wrong))


def test_distinct_finds_the_groups() -> None:
    rows, place = distinct(grey(0.1, 0.1, 0.2, 0.1))
    torch.testing.assert_close(rows[:, 0, 0, 0], torch.tensor([0.1, 0.2, 0.1]))
    assert place.tolist() == [0, 0, 1, 2]


def test_pictures_round_clamp_and_resize() -> None:
    images = grey(-1.0, 0.5, 2.0)
    images[1, 0] = 0.25
    found = pictures(images)
    assert found.dtype == np.uint8 and found.shape == (3, 4, 4, 3) and found.flags.c_contiguous
    assert found[:, 0, 0].tolist() == [[0, 0, 0], [64, 128, 128], [255, 255, 255]]
    assert pictures(images, 8).shape == (3, 8, 8, 3)
