"""Ladders: the order is what it is said to be, seeds fix the bytes, and what is done to all is the same for all."""

import cv2
import numpy as np
import pytest

from prefrestore.degrade.presets import get_preset
from prefrestore.degrade.synthetic import sample_parameters
from prefrestore.preference.known_order import LADDERS, augment, milder, preference_of


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """128 px of smooth shapes with fine detail, in place of a face."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
    detail = rng.normal(0, 12, (64, 64, 3)).repeat(2, 0).repeat(2, 1)
    return np.clip(coarse + detail, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", [kind for kind in LADDERS if kind != "equal"])
def test_the_stronger_damage_is_further_from_the_face(kind: str, face: np.ndarray) -> None:
    ordered = 0
    for seed in range(8):
        best, weak, strong = (
            picture.astype(float) for picture in LADDERS[kind](face, np.random.default_rng(seed))
        )
        assert best.shape == weak.shape == strong.shape == face.shape
        near, far = np.abs(weak - best).mean(), np.abs(strong - best).mean()
        assert 0 < near and 0 < far
        ordered += near < far
    assert ordered == 8


@pytest.mark.parametrize("kind", LADDERS)
def test_equal_seeds_give_equal_bytes(kind: str, face: np.ndarray) -> None:
    once, again = (np.stack(LADDERS[kind](face, np.random.default_rng(3))) for _ in range(2))
    assert once.dtype == np.uint8 and np.array_equal(once, again)


def test_ties_can_hardly_be_told_apart() -> None:
    smooth = np.linspace(40, 210, 128)[None, :, None].repeat(128, 0).repeat(3, 2).astype(np.uint8)
    versions = np.stack(LADDERS["equal"](smooth, np.random.default_rng(0))).astype(int)
    assert np.abs(versions - smooth).mean() < 1.5
    assert preference_of("equal") == preference_of("round trip") == 0.5
    assert preference_of("restored") == preference_of("degraded") == 1


def test_milder_lowers_every_strength_and_keeps_the_tone() -> None:
    for seed in range(20):
        strong = sample_parameters(get_preset("old-photo"), 256, np.random.default_rng(seed))
        weak = milder(strong, 0.5)
        assert weak.sigma == (strong.sigma[0] / 2, strong.sigma[1] / 2)
        assert weak.factor - 1 == pytest.approx((strong.factor - 1) / 2) and weak.noise == strong.noise / 2
        assert weak.quality >= strong.quality
        assert weak.old_photo is not None and strong.old_photo is not None
        assert weak.old_photo.tone == strong.old_photo.tone
        for name in ("grain", "texture", "stain", "dust", "scratches", "screen_strength", "sharpen"):
            assert getattr(weak.old_photo, name) <= getattr(strong.old_photo, name)
    assert milder(strong, 1.0) == strong


def test_what_is_done_to_all_is_the_same_for_all(face: np.ndarray) -> None:
    changed = 0
    for seed in range(12):
        out = augment(np.stack([face, face, face]), np.random.default_rng(seed))
        assert out.shape == (3, *face.shape) and out.dtype == np.uint8
        assert np.array_equal(out[0], out[1]) and np.array_equal(out[0], out[2])
        changed += not np.array_equal(out[0], face)
    assert changed == 12


def test_a_ladder_keeps_its_distances_under_it(face: np.ndarray) -> None:
    ladder = np.stack(LADDERS["blurred"](face, np.random.default_rng(1)))
    for seed in range(12):
        best, weak, strong = augment(ladder, np.random.default_rng(seed)).astype(float)
        assert np.abs(weak - best).mean() < np.abs(strong - best).mean()
