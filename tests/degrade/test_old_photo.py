from dataclasses import replace

import numpy as np
import pytest

from prefrestore.degrade.old_photo import (
    OldPhoto,
    Toning,
    apply_damage,
    apply_tone,
    draw_old_photo,
    draw_tone,
    halftone,
)
from prefrestore.degrade.synthetic import DegradationParameters, apply_parameters

GREY = Toning(saturation=0.0, gamma=1.0, contrast=1.0, ink=(0.0, 0.0, 0.0), paper=(255.0, 255.0, 255.0))
SEPIA = Toning(saturation=0.0, gamma=1.0, contrast=1.0, ink=(40.0, 30.0, 20.0), paper=(240.0, 220.0, 180.0))
UNHARMED = OldPhoto(
    tone=GREY,
    scale=1.0,
    grain=0.0,
    grain_size=0.5,
    texture=0.0,
    stain=0.0,
    dust=0,
    scratches=0,
    screen="none",
    pitch=4.0,
    screen_angle=0.0,
    screen_strength=1.0,
    sharpen=0.0,
)
RUINED = replace(
    UNHARMED,
    grain=10.0,
    texture=8.0,
    stain=0.3,
    dust=30,
    scratches=6,
    screen="dots",
    screen_strength=0.5,
    sharpen=1.0,
)


def colours(size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def flat(level: float, size: int = 96) -> np.ndarray:
    return np.full((size, size, 3), level, np.float32)


def test_grey_is_luminance() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 10, 10]]], np.uint8)
    assert apply_tone(primaries, GREY)[0, :, 0].tolist() == [76, 150, 29, 255, 10]


def test_ink_and_paper_are_where_black_and_white_go() -> None:
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert apply_tone(ends, SEPIA).tolist() == [[[40, 30, 20], [240, 220, 180]]]
    assert apply_tone(ends, replace(SEPIA, gamma=1.7, contrast=2.0)).tolist() == [[[40, 30, 20], [240, 220, 180]]]


def test_gamma_and_contrast_are_known_curves() -> None:
    middle = np.full((1, 1, 3), 51, np.uint8)
    assert apply_tone(middle, replace(GREY, gamma=2.0))[0, 0, 0] == 10  # 255 * 0.2^2 = 10.2
    # 0.5 + 0.5 tanh(2.001 (0.2 - 0.5)) / tanh(1.0005) = 0.147
    assert apply_tone(middle, replace(GREY, contrast=2.0))[0, 0, 0] == 38


@pytest.mark.parametrize("seed", range(20))
def test_a_tone_never_reverses_the_greys(seed: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    toned = apply_tone(ramp, draw_tone(np.random.default_rng(seed))).astype(int)
    assert (np.diff(toned[0], axis=0) >= 0).all()


def test_full_saturation_keeps_colours() -> None:
    image = colours()
    assert np.abs(apply_tone(image, replace(GREY, saturation=1.0)).astype(int) - image).max() <= 1


def test_tones_come_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    tones = [draw_tone(rng) for _ in range(1000)]
    grey = [t for t in tones if t.monochrome and len(set(t.ink)) == 1 and len(set(t.paper)) == 1]
    assert 0.40 < len(grey) / 1000 < 0.50
    assert 0.75 < sum(t.monochrome for t in tones) / 1000 < 0.85
    assert all(0 <= value <= 255 for t in tones for value in (*t.ink, *t.paper))


@pytest.mark.parametrize("screen", ["dots", "lines"])
@pytest.mark.parametrize("quality", [30, 90])
def test_grey_stays_grey_in_both(screen: str, quality: int) -> None:
    parameters = DegradationParameters(
        sigma=(1.5, 0.7),
        angle=0.5,
        kernel_size=9,
        factor=1.7,
        noise=12.0,
        quality=quality,
        old_photo=replace(RUINED, screen=screen),
    )
    pair = apply_parameters(colours(), parameters, np.random.default_rng(4))
    for array in (pair.lq, pair.target):
        assert np.array_equal(array[..., 0], array[..., 1])
        assert np.array_equal(array[..., 0], array[..., 2])


def test_the_target_has_the_tone_and_no_damage() -> None:
    parameters = DegradationParameters(
        sigma=(2.0, 2.0),
        angle=0.0,
        kernel_size=9,
        factor=2.0,
        noise=9.0,
        quality=40,
        old_photo=replace(RUINED, tone=SEPIA),
    )
    image = colours()
    pair = apply_parameters(image, parameters, np.random.default_rng(4))
    assert np.array_equal(pair.target, apply_tone(image, SEPIA))


def test_the_tone_of_the_pair_agrees() -> None:
    parameters = DegradationParameters(
        sigma=(2.0, 2.0),
        angle=0.0,
        kernel_size=9,
        factor=2.0,
        noise=3.0,
        quality=90,
        old_photo=replace(UNHARMED, tone=SEPIA),
    )
    pair = apply_parameters(colours(), parameters, np.random.default_rng(4))
    np.testing.assert_allclose(pair.lq.mean((0, 1)), pair.target.mean((0, 1)), atol=1.5)


@pytest.mark.parametrize(
    "damage",
    [
        {"grain": 9.0},
        {"texture": 9.0},
        {"stain": 0.3},
        {"dust": 40},
        {"scratches": 5},
        {"screen": "dots"},
        {"screen": "lines"},
    ],
)
def test_each_damage_is_seen_and_seeded(damage: dict[str, object]) -> None:
    old = replace(UNHARMED, **damage)
    first, again, other = (apply_damage(flat(120), old, np.random.default_rng(s)) for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 1
    assert first.min() >= 0 and first.max() <= 255


def test_unharmed_is_unchanged() -> None:
    image = colours().astype(np.float32)
    assert np.array_equal(apply_damage(image, UNHARMED, np.random.default_rng(0)), image)


def test_grain_has_its_strength() -> None:
    for size in (0.2, 1.0):
        old = replace(UNHARMED, grain=8.0, grain_size=size)
        grain = apply_damage(flat(128, 200), old, np.random.default_rng(0)) - 128
        assert grain.std() == pytest.approx(8, rel=0.05)


def test_a_screen_keeps_the_order_of_greys_and_its_pitch() -> None:
    old = replace(UNHARMED, screen="lines", pitch=8.0)
    means = [halftone(flat(level), old, np.random.default_rng(0)).mean() for level in (0, 60, 128, 200, 255)]
    assert means == sorted(means)
    assert means[0] == 0 and means[-1] == 255
    assert means[2] == pytest.approx(128, abs=8)
    row = halftone(flat(128), old, np.random.default_rng(0))[0, :, 0]
    spectrum = np.abs(np.fft.rfft(row - row.mean()))
    assert int(spectrum.argmax()) == 96 // 8


def test_sharpening_overshoots_an_edge() -> None:
    image = flat(60)
    image[:, 48:] = 180
    sharp = apply_damage(image, replace(UNHARMED, sharpen=1.0), np.random.default_rng(0))
    assert sharp.max() > 190 and sharp.min() < 50


def test_lengths_follow_the_size() -> None:
    small = [draw_old_photo(256, np.random.default_rng(s)) for s in range(30)]
    large = [draw_old_photo(512, np.random.default_rng(s)) for s in range(30)]
    for one, two in zip(small, large, strict=True):
        assert two.pitch == pytest.approx(2 * one.pitch)
        assert two.grain_size == pytest.approx(2 * one.grain_size)
        assert two.tone == one.tone and two.grain == one.grain
