"""PSNR, LPIPS, identity and landmarks: the rewards that compare with the ground truth."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.preference.rewards import build_reward
from prefrestore.preference.rewards.base import RewardContext
from prefrestore.preference.rewards.landmarks import agreement

Noise = Callable[..., Tensor]
Climbs = Callable[..., None]


def blurred(face: Tensor, side: int) -> Tensor:
    small = functional.interpolate(face, (side, side), mode="bilinear", antialias=True)
    return functional.interpolate(small, face.shape[2:], mode="bicubic").clamp(0, 1)


def test_psnr_by_hand(noise: Noise, climbs: Climbs) -> None:
    reward = build_reward("psnr")
    reference = torch.full((3, 3, 4, 4), 0.5)
    images = reference + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    # MSE 0.01 is 20 dB, 0.0001 is 40 dB, and nothing is more than 50 dB.
    torch.testing.assert_close(reward(images, RewardContext(reference=reference)), torch.tensor([0.4, 0.8, 1.0]))
    climbs(reward, noise(0), RewardContext(reference=noise(1)))


def test_psnr_of_equal_pictures_has_a_finite_gradient(noise: Noise) -> None:
    images = noise(0).requires_grad_()
    build_reward("psnr")(images, RewardContext(reference=noise(0))).sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()


@pytest.fixture
def lpips_weights(tmp_path: Path) -> Path:
    from prefrestore.metrics.lpips import LPIPS

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        save_file(LPIPS("alex", pretrained=False).state_dict(), tmp_path / "alex.safetensors")
    return tmp_path / "alex.safetensors"


def test_lpips_is_minus_the_distance_and_shares_references(
    noise: Noise, climbs: Climbs, lpips_weights: Path
) -> None:
    from prefrestore.metrics.lpips import LPIPS

    reward = build_reward("lpips", weights=lpips_weights)
    assert reward.name == "lpips_alex"
    images, context = noise(0, 4), RewardContext(reference=noise(1, 2)).repeat(2)
    assert context.reference is not None
    expected = -LPIPS("alex", weights=lpips_weights)(images * 2 - 1, context.reference * 2 - 1)
    torch.testing.assert_close(reward(images, context), expected)
    assert (expected < 0).all() and (reward(context.reference, context) == 0).all()
    climbs(reward, images, context)


def test_lpips_in_training_looks_from_a_view_that_the_generator_draws(noise: Noise, lpips_weights: Path) -> None:
    reward = build_reward("lpips", weights=lpips_weights)

    def scores(seed: int | None) -> torch.Tensor:
        views = None if seed is None else torch.Generator().manual_seed(seed)
        return reward(noise(0, 4), RewardContext(reference=noise(1, 2), views=views).repeat(2))

    assert torch.equal(scores(0), scores(0))
    assert len({round(scores(seed)[0].item(), 6) for seed in (None, 0, 1, 2)}) == 4


def test_lpips_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="prefrestore.evaluation.fetch"):
        build_reward("lpips", net="vgg")


@pytest.fixture(scope="module")
def identity() -> Any:
    pytest.importorskip("onnx")
    return build_reward("identity")


def test_identity_is_the_cosine_that_evaluation_measures(identity: Any, face: Tensor, climbs: Climbs) -> None:
    from prefrestore.faces.identity import IdentityEmbedder, cosine
    from prefrestore.preference.rewards.base import pictures

    images = torch.cat([face, blurred(face, 32), blurred(face, 10)])
    context = RewardContext(reference=face).repeat(3)
    scores = identity(images, context)
    assert float(scores[0]) == pytest.approx(1, abs=1e-5) and scores[0] > scores[1] > scores[2]
    embedder = IdentityEmbedder()
    measured = [cosine(embedder.embed(picture), embedder.embed(pictures(face)[0])) for picture in pictures(images)]
    assert scores.tolist() == pytest.approx(measured, abs=0.03)
    climbs(identity, images[1:], context.select([1, 2]))


def test_identity_takes_aligned_squares_only(identity: Any, face: Tensor) -> None:
    with pytest.raises(InvalidInputError, match="squares"):
        identity(face[..., :200], RewardContext(reference=face[..., :200]))


def test_agreement_by_hand() -> None:
    assert [agreement(d) for d in (0, 20, 60)] == [1, 0.5, 0.25]
    assert math.isnan(agreement(math.nan))


@pytest.mark.parametrize("points", [5, 68])
def test_landmarks_of_a_shifted_face(points: int, face: Tensor) -> None:
    try:
        reward = build_reward("landmarks", points=points)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert reward.name == f"landmarks{points}" and not reward.differentiable
    moved = torch.cat([face, face.roll(8, 3)])
    scores = reward(moved, RewardContext(reference=face).repeat(2))
    assert float(scores[0]) == 1
    # 8 px of 256 are 16 px at 512, up to the detector's own accuracy of a few.
    assert 20 * (1 / float(scores[1]) - 1) == pytest.approx(16, abs=5)
    assert torch.equal(scores, reward(moved, RewardContext(reference=face).repeat(2)))


def test_landmarks_without_a_face_have_no_score(face: Tensor) -> None:
    flat = torch.full_like(face, 0.5)
    reward = build_reward("landmarks")
    images, reference = torch.cat([face, flat, face]), torch.cat([face, face, flat])
    assert reward(images, RewardContext(reference=reference)).isnan().tolist() == [False, True, True]


def test_landmarks_know_two_sets_of_points() -> None:
    with pytest.raises(InvalidInputError, match="5, 68 or 98"):
        build_reward("landmarks", points=12)
    with pytest.raises(InvalidInputError, match="for 98 points, not for 5"):
        build_reward("landmarks", weights="a.pth")
    with pytest.raises(WeightsError, match="'weights'"):
        build_reward("landmarks", points=98)


def test_landmarks_of_98_points_by_hand(tmp_path: Path, made_up: Any) -> None:
    from prefrestore.metrics.fan import LandmarkNetwork, load_landmark_network

    shapes = {key: tuple(value.shape) for key, value in LandmarkNetwork(8, 2, 98).state_dict().items()}
    torch.save({"state_dict": made_up.weights(shapes)}, tmp_path / "fan.pth")
    reward = build_reward("landmarks", points=98, weights=str(tmp_path / "fan.pth"))
    assert reward.name == "landmarks98" and not reward.differentiable and reward.needs_reference
    first, second = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = load_landmark_network(tmp_path / "fan.pth")
    apart = float((found.points(first) - found.points(second)).norm(dim=2).mean())
    assert apart > 1
    scores = reward(torch.cat([first, second]), RewardContext(reference=torch.cat([second, second])))
    assert scores.tolist() == pytest.approx([1 / (1 + apart / 20), 1])


def test_identity_by_a_named_recogniser(tmp_path: Path, made_up: Any, climbs: Climbs) -> None:
    """The grey ArcFace of the published run: the whole face, and a cosine with gradients."""
    from prefrestore.metrics.recognition import GreyArcFace, load_recogniser

    shapes = {key: tuple(value.shape) for key, value in GreyArcFace((8, 8, 16, 32), 16).state_dict().items()}
    torch.save(made_up.weights(shapes), tmp_path / "arcface.pth")
    reward = build_reward("identity", weights=tmp_path / "arcface.pth")
    assert reward.name == "identity_arcface"
    first, second = (torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    network = load_recogniser(tmp_path / "arcface.pth")
    known = float((network(first * 2 - 1) * network(second * 2 - 1)).sum())
    context = RewardContext(reference=torch.cat([second, second]))
    scores = reward(torch.cat([first, second]), context)
    assert scores.tolist() == pytest.approx([known, 1], abs=1e-5)
    climbs(reward, torch.cat([first, first.flip(-1)]), context)


def test_dlib_identity_is_one_minus_the_distance(face: Tensor) -> None:
    try:
        reward = build_reward("dlib_identity")
    except MissingDependencyError as error:
        pytest.skip(str(error))
    flat = torch.full_like(face, 0.5)
    images = torch.cat([face, blurred(face, 64), blurred(face, 16), face])
    reference = torch.cat([face, face, face, flat])
    scores = reward(images, RewardContext(reference=reference))
    assert float(scores[0]) == 1 and scores[1] > 0.6 and scores[1] > scores[2] and scores[3].isnan()
    assert not reward.differentiable


@pytest.mark.parametrize("name", ["landmarks", "dlib_identity"])
def test_dlib_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingDependencyError, match=r"prefrestore\[eval\]"):
        build_reward(name, **({"points": 68} if name == "landmarks" else {}))
