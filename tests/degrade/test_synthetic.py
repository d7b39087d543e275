from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefrestore.degrade import PRESETS, degrade
from prefrestore.degrade import synthetic as module
from prefrestore.degrade.presets import BENCH_MILD, CLASSIC, PAPER
from prefrestore.degrade.synthetic import (
    DegradationParameters,
    add_noise,
    apply_parameters,
    blur,
    blur_kernel,
    downsample,
    jpeg,
    resize,
    sample_parameters,
    to_uint8,
)
from prefrestore.errors import InvalidInputError


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def harmless(**changes: Any) -> DegradationParameters:
    plain = DegradationParameters(
        sigma=(0.01, 0.01), angle=0.0, kernel_size=1, factor=1.0, noise=0.0, quality=100, old_photo=None
    )
    return replace(plain, **changes)


def test_a_known_gaussian_kernel() -> None:
    # exp(-r^2/2) at r^2 = 0, 1, 2, divided by 1 + 4 exp(-1/2) + 4 exp(-1) = 4.897640
    expected = [
        [0.075114, 0.123841, 0.075114],
        [0.123841, 0.204180, 0.123841],
        [0.075114, 0.123841, 0.075114],
    ]
    np.testing.assert_allclose(blur_kernel(3, 1.0, 1.0), expected, atol=1e-6)


@given(
    half=st.integers(0, 30),
    sigma_x=st.floats(1e-3, 20),
    sigma_y=st.floats(1e-3, 20),
    angle=st.floats(0, np.pi),
)
@settings(max_examples=40, deadline=None)
def test_kernels_sum_to_one_and_are_symmetric(half: int, sigma_x: float, sigma_y: float, angle: float) -> None:
    kernel = blur_kernel(2 * half + 1, sigma_x, sigma_y, angle)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)


def test_an_anisotropic_kernel_has_its_moments_along_its_axes() -> None:
    kernel = blur_kernel(61, 4.0, 2.0, 0.0).astype(np.float64)
    grid = np.arange(61) - 30
    assert (kernel * grid[None, :] ** 2).sum() == pytest.approx(16, rel=1e-3)
    assert (kernel * grid[:, None] ** 2).sum() == pytest.approx(4, rel=1e-3)
    np.testing.assert_allclose(blur_kernel(61, 4.0, 2.0, np.pi / 2), kernel.T, atol=1e-7)


def test_an_isotropic_blur_is_its_two_dimensional_kernel() -> None:
    image = picture(40, 30).astype(np.float32)
    whole = cv2.filter2D(image, cv2.CV_32F, blur_kernel(13, 2.0, 2.0), borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blur(image, 13, (2.0, 2.0)), whole, atol=1e-2)


def test_a_point_becomes_the_kernel() -> None:
    image = np.zeros((21, 21, 3), np.float32)
    image[10, 10] = 1
    spread = blur(image, 9, (2.0, 1.0), 0.3)
    np.testing.assert_allclose(spread[6:15, 6:15, 1], blur_kernel(9, 2.0, 1.0, 0.3)[::-1, ::-1], atol=1e-6)


def test_downsampling_rounds_and_never_vanishes() -> None:
    image = picture(100, 60).astype(np.float32)
    assert downsample(image, 3.0).shape == (33, 20, 3)
    assert downsample(image, 500.0).shape == (1, 1, 3)
    assert downsample(image, 1.0) is image
    with pytest.raises(InvalidInputError, match="enlarges"):
        downsample(image, 0.5)


def test_resizing_is_bilinear() -> None:
    ramp = np.array([[[0, 0, 0], [100, 50, 200]]], np.float32)
    np.testing.assert_allclose(resize(ramp, 4, 1)[0, :, 0], [0, 25, 75, 100])


def test_a_scanner_averages() -> None:
    stripes = np.zeros((8, 8, 3), np.float32)
    stripes[:, ::4] = 255
    np.testing.assert_allclose(resize(stripes, 2, 2, scanned=True), 63.75)


def test_noise_has_the_sigma_asked_for() -> None:
    grey = np.full((200, 200, 3), 128, np.float32)
    noise = add_noise(grey, 7.0, np.random.default_rng(3)) - grey
    assert noise.std() == pytest.approx(7, rel=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03
    same = add_noise(grey, 7.0, np.random.default_rng(3), monochrome=True)
    assert np.array_equal(same[..., 0], same[..., 2])
    assert add_noise(grey, 0.0, np.random.default_rng(3)) is grey


def test_jpeg_loses_more_at_lower_quality_and_keeps_the_channels() -> None:
    image = picture(64, 64)
    errors = [np.abs(jpeg(image, quality).astype(int) - image).mean() for quality in (95, 60, 20)]
    assert errors[0] < errors[1] < errors[2]
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(jpeg(red, 95).astype(int) - red).max() <= 4
    for quality in (0, 101):
        with pytest.raises(InvalidInputError, match="quality"):
            jpeg(image, quality)


def test_the_jpeg_coder_gets_the_quality_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    encode = cv2.imencode

    def spy(suffix: str, image: np.ndarray, flags: list[int]) -> Any:
        assert suffix == ".jpg" and flags[0] == cv2.IMWRITE_JPEG_QUALITY
        used.append(flags[1])
        return encode(suffix, image, flags)

    monkeypatch.setattr(module.cv2, "imencode", spy)
    rng = np.random.default_rng(0)
    drawn = [degrade(picture(8, 8), "classic", rng).parameters.quality for _ in range(600)]
    assert used == drawn
    assert set(used) == set(range(60, 101))


def test_draws_stay_in_the_scaled_range_and_reach_its_ends() -> None:
    rng = np.random.default_rng(1)
    for preset in (PAPER, replace(PAPER, spread="log"), CLASSIC, BENCH_MILD):
        scaled = preset.scaled(256)
        drawn = [sample_parameters(preset, 256, rng) for _ in range(400)]
        for low, high, values in (
            (*scaled.blur_sigma, [p.sigma[0] for p in drawn]),
            (*scaled.downsample, [p.factor for p in drawn]),
            (*scaled.noise, [p.noise for p in drawn]),
            (*scaled.jpeg, [p.quality for p in drawn]),
        ):
            assert low <= min(values) <= low + 0.1 * (high - low)
            assert high - 0.1 * (high - low) <= max(values) <= high
        assert 0.4 < np.mean([p.sigma[0] != p.sigma[1] for p in drawn]) < 0.6
        assert {p.kernel_size for p in drawn} == {21}


def test_a_log_spread_favours_the_mild() -> None:
    rng = np.random.default_rng(1)
    mild = [sample_parameters(replace(PAPER, spread="log"), 512, rng).factor for _ in range(500)]
    assert np.median(mild) == pytest.approx(np.sqrt(30), rel=0.2)


def test_with_nothing_drawn_only_the_coder_is_left() -> None:
    image = picture(32, 48)
    pair = apply_parameters(image, harmless(), np.random.default_rng(0))
    assert np.array_equal(pair.target, image)
    assert np.array_equal(pair.lq, jpeg(image, 100))


def test_the_steps_are_taken_in_order() -> None:
    image = picture(64, 64)
    parameters = harmless(sigma=(2.0, 1.0), angle=0.4, kernel_size=11, factor=2.0, noise=5.0, quality=50)
    small = downsample(blur(image.astype(np.float32), 11, (2.0, 1.0), 0.4), 2.0)
    stored = jpeg(to_uint8(add_noise(small, 5.0, np.random.default_rng(9))), 50)
    pair = apply_parameters(image, parameters, np.random.default_rng(9))
    assert np.array_equal(pair.lq, resize(stored, 64, 64))


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 2**63),
    preset=st.sampled_from(sorted(PRESETS)),
)
@settings(max_examples=60, deadline=None)
def test_any_size_any_preset_and_the_same_seed_the_same_bytes(height: int, width: int, seed: int, preset: str) -> None:
    image = picture(height, width, seed % 1000)
    before = image.copy()
    first = degrade(image, preset, np.random.default_rng(seed))
    second = degrade(image, preset, np.random.default_rng(seed))
    for array in (first.lq, first.target):
        assert array.shape == image.shape
        assert array.dtype == np.uint8
        assert not np.shares_memory(array, image)
    assert np.array_equal(first.lq, second.lq)
    assert np.array_equal(first.target, second.target)
    assert first.parameters == second.parameters
    assert np.array_equal(image, before)
    if first.parameters.old_photo is None:
        assert np.array_equal(first.target, image)


def test_another_seed_other_bytes() -> None:
    image = picture(64, 64)
    first, second = (degrade(image, "paper", np.random.default_rng(seed)).lq for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1]],
    ],
)
def test_what_is_no_picture_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="uint8 H,W,3"):
        degrade(wrong, "paper", np.random.default_rng(0))


@pytest.mark.parametrize(("level", "expected"), [("mild", 26.07), ("severe", 22.00)])
def test_the_bench_presets_are_as_hard_as_the_benchmark(shared_data: Path, level: str, expected: float) -> None:
    # The expected PSNR is that of all 166 benchmark inputs; 83 new draws differ from it by chance, about 0.3
    # dB.
    files = sorted((shared_data / "bench" / "gt").glob("*.png"))[::4]
    errors = []
    for index, path in enumerate(files):
        face = np.array(Image.open(path).convert("RGB"))
        lq = degrade(face, f"bench-{level}", np.random.default_rng(index)).lq
        errors.append(10 * np.log10(255**2 / np.mean((lq.astype(float) - face) ** 2)))
    assert np.mean(errors) == pytest.approx(expected, abs=1.0)
