from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.preference.rewards import REWARDS, build_mix, build_reward, parse_mix, read_options
from prefrestore.preference.rewards.base import ImageReward, RewardContext
from prefrestore.preference.rewards.mix import RewardMix, standardise

NAN = float("nan")


class Channel(ImageReward):
    """The mean of one colour channel, times a factor."""

    def __init__(self, name: str, channel: int, factor: float = 1, differentiable: bool = True) -> None:
        self.name, self.channel, self.factor, self.differentiable = name, channel, factor, differentiable

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        return images[:, self.channel].mean((1, 2)) * self.factor


def colours(red: list[float], green: list[float]) -> Tensor:
    channels = [torch.tensor(values).view(-1, 1, 1).expand(-1, 4, 4) for values in (red, green, green)]
    return torch.stack(channels, 1)


def test_standardise_by_hand() -> None:
    # Mean 2, squared deviations 1, 0, 1: std sqrt(2/3).
    expected = torch.tensor([-1.0, 0.0, 1.0]) / ((2 / 3) ** 0.5 + 1e-4)
    torch.testing.assert_close(standardise(torch.tensor([1.0, 2.0, 3.0])), expected)
    with_gap = standardise(torch.tensor([1.0, NAN, 2.0, 3.0]))
    assert with_gap.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(with_gap[[0, 2, 3]], expected)


def test_standardise_within_groups_by_hand() -> None:
    scores, groups = torch.tensor([1.0, 3.0, 10.0, 10.0, NAN, 12.0]), torch.tensor([7, 7, 2, 2, 2, 5])
    # Group means 2, 10 and 12 leave -1, 1, 0, 0, -, 0: std sqrt(2/5).
    expected = torch.tensor([-1.0, 1.0, 0.0, 0.0, NAN, 0.0]) / (0.4**0.5 + 1e-4)
    torch.testing.assert_close(standardise(scores, groups), expected, equal_nan=True)


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5], [NAN, 0.5, NAN], [NAN, NAN, NAN]])
def test_standardise_where_there_is_nothing_to_compare(scores: list[float]) -> None:
    found = standardise(torch.tensor(scores))
    for before, after in zip(torch.tensor(scores), found, strict=True):
        assert after.isnan() if before.isnan() else after == 0


def test_a_mix_by_hand() -> None:
    mix = RewardMix([(Channel("red", 0), 2.0), (Channel("green", 1, factor=100), 1.0)])
    images = colours([0.1, 0.2, 0.3], [0.6, 0.4, 0.2])
    mixed = mix(images, RewardContext())
    unit = (2 / 3) ** 0.5
    red = torch.tensor([-0.1, 0.0, 0.1]) / (0.1 * unit + 1e-4)
    green = torch.tensor([20.0, 0.0, -20.0]) / (20 * unit + 1e-4)
    torch.testing.assert_close(mixed.total, 2 * red + green)
    torch.testing.assert_close(mixed.terms["green"], torch.tensor([60.0, 40.0, 20.0]))
    assert mixed.means() == pytest.approx({"red": 0.2, "green": 40.0})
    assert not mixed.total.requires_grad


def test_an_image_that_one_term_cannot_score_has_no_total() -> None:
    mix = RewardMix([(Channel("red", 0), 1.0), (Channel("green", 1), 1.0)])
    terms = {"red": torch.tensor([0.1, 0.2, NAN]), "green": torch.tensor([0.3, NAN, NAN])}
    mixed = mix.combine(terms)
    assert mixed.total.isnan().tolist() == [False, True, True]
    assert mixed.missing() == {"red": 1, "green": 2}
    assert mixed.means() == pytest.approx({"red": 0.15, "green": 0.3})


def test_combine_over_parts_equals_the_whole_batch() -> None:
    mix = RewardMix([(Channel("red", 0), 2.0), (Channel("green", 1), 1.0)])
    images = colours([0.1, 0.2, 0.3, 0.9], [0.6, 0.4, 0.2, 0.3])
    parts = [mix.score(part, RewardContext()) for part in images.split(3)]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    torch.testing.assert_close(mix.combine(joined).total, mix(images, RewardContext()).total)
    with pytest.raises(InvalidInputError, match="this mix has the rewards"):
        mix.combine({"red": joined["red"]})


def test_gradients_are_those_of_the_weighted_raw_scores(climbs: Callable[..., None]) -> None:
    mix = RewardMix([(Channel("red", 0), 2.0), (Channel("green", 1, factor=10), 0.5)])
    images = colours([0.1, 0.2], [0.6, 0.4]).requires_grad_()
    mixed = mix.differentiable(images, RewardContext())
    torch.testing.assert_close(mixed.total.detach(), torch.tensor([0.2 + 3.0, 0.4 + 2.0]))
    mixed.total.sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad[:, :, 0, 0], torch.tensor([[2 / 16, 5 / 16, 0]]).expand(2, 3))


def test_a_reward_without_gradients_is_named() -> None:
    mix = RewardMix([(Channel("red", 0), 1.0), (Channel("blind", 1, differentiable=False), 1.0)])
    with pytest.raises(InvalidInputError, match="blind has no gradients"):
        mix.differentiable(colours([0.1], [0.2]).requires_grad_(), RewardContext())


def test_what_a_mix_needs() -> None:
    told, compared = Channel("told", 0), Channel("compared", 1)
    told.needs_caption, compared.needs_reference = True, True
    assert RewardMix([(told, 1)]).needs_caption and not RewardMix([(told, 1)]).needs_reference
    assert RewardMix([(told, 1), (compared, 1)]).needs_reference


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "one reward or more"),
        ([(Channel("red", 0), 1.0), (Channel("red", 1), 1.0)], "twice"),
        ([(Channel("red", 0), 0.0)], "above 0"),
        ([(Channel("red", 0), NAN)], "above 0"),
    ],
)
def test_mixes_that_make_no_sense(terms: list[tuple[Channel, float]], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        RewardMix(terms)


def test_parse_mix() -> None:
    assert parse_mix("identity=1, lpips = 0.5") == {"identity": 1.0, "lpips": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no reward ''"),
        ("beauty=1", "choose among identity"),
        ("psnr", "name=weight"),
        ("psnr=much", "name=weight"),
        ("psnr=1,psnr=2", "twice"),
        ("psnr=-1", "above 0"),
        ("psnr=nan", "above 0"),
        ("psnr=inf", "above 0"),
    ],
)
def test_specs_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_mix(text)


def test_a_raw_mix_adds_the_scores_as_they_are() -> None:
    mix = RewardMix([(Channel("red", 0), 2.0), (Channel("green", 1), 0.5)], raw=True)
    images = colours([0.1, 0.4], [0.8, 0.2])
    mixed = mix(images, RewardContext(), torch.tensor([0, 0]))
    assert mixed.total.tolist() == pytest.approx([0.2 + 0.4, 0.8 + 0.1])


def test_the_published_mix_asks_for_its_files(tmp_path: Path) -> None:
    # Pref-Restore's run: PickScore, HPSv2.1 and CLIPScore 1, landmarks, identity and LPIPS a half.
    assert parse_mix("published") == {
        "pickscore": 1, "hps": 1, "clipscore": 1, "landmarks": 0.5, "identity": 0.5, "lpips": 0.5
    }  # fmt: skip
    with pytest.raises(InvalidInputError, match="--reward-options"):
        read_options("published", None)
    path = tmp_path / "options.json"
    path.write_text('{"identity": {"weights": "a.pth"}, "hps": {"open_clip": "h.pt"}, "lpips": {"weights": "v"}}')
    assert read_options("published", path) == {
        "identity": {"weights": "a.pth"},
        "hps": {"open_clip": "h.pt"},
        "landmarks": {"points": 98},
        "lpips": {"net": "vgg", "weights": "v"},
    }
    assert read_options("psnr=1", None) == {} and read_options("psnr=1", path)["hps"] == {"open_clip": "h.pt"}
    for content in ("[]", '{"lpips": 1}', "no json"):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match="options.json is not a file of reward options"):
            read_options("psnr=1", path)


def test_every_name_leads_to_a_reward() -> None:
    from importlib import import_module

    for module, kind in REWARDS.values():
        made = getattr(import_module(f"prefrestore.preference.rewards.{module}"), kind)
        assert issubclass(made, ImageReward)


def test_building() -> None:
    mix = build_mix({"psnr": 2.0, "landmarks": 1.0}, {"landmarks": {"points": 5}})
    assert mix.weights == {"psnr": 2.0, "landmarks5": 1.0}
    with pytest.raises(InvalidInputError, match="no reward 'beauty'"):
        build_reward("beauty")
    with pytest.raises(InvalidInputError, match="has no option 'sharpness'"):
        build_reward("landmarks", sharpness=1)
    with pytest.raises(InvalidInputError, match="not in the mix"):
        build_mix({"psnr": 1.0}, {"lpips": {"net": "vgg"}})
    with pytest.raises(WeightsError, match="'open_clip'"):
        build_mix({"psnr": 1.0, "hps": 1.0})
