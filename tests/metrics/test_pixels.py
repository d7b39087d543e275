import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.metrics.pixels import psnr, ssim


def noise(seed: int, size: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_psnr_of_a_known_error() -> None:
    grey = np.full((16, 16, 3), 100, np.uint8)
    # An error of 10 everywhere: MSE 100, 10 log10(65025 / 100) = 28.1308 dB.
    assert psnr(grey, grey + 10) == pytest.approx(28.1308, abs=1e-4)


def test_psnr_of_one_wrong_pixel() -> None:
    other = np.zeros((10, 10, 3), np.uint8)
    other[0, 0, 0] = 30
    # MSE = 900 / 300 = 3: 10 log10(65025 / 3) = 43.3596 dB.
    assert psnr(np.zeros_like(other), other) == pytest.approx(43.3596, abs=1e-4)


def test_equal_pictures() -> None:
    picture = noise(0)
    assert psnr(picture, picture) == float("inf")
    assert ssim(picture, picture) == pytest.approx(1)


def test_ssim_of_flat_pictures() -> None:
    # Without variance only the luminance term is left: (2*100*120 + c1) / (100^2 + 120^2 + c1), c1 = 2.55^2.
    first, second = (np.full((20, 20, 3), value, np.uint8) for value in (100, 120))
    assert ssim(first, second) == pytest.approx((24000 + 6.5025) / (24400 + 6.5025), abs=1e-6)


def test_ssim_agrees_with_scikit_image() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    first = noise(1)
    second = (0.6 * first + 0.4 * noise(2)).astype(np.uint8)
    # scikit-image crops its result by the window's radius as well, but cuts the Gaussian at 3.5 sigma: 11 px.
    expected = structural_similarity(
        first, second, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(first, second) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_different_shapes_are_refused(metric) -> None:  # noqa: ANN001
    with pytest.raises(InvalidInputError):
        metric(noise(0, 16), noise(0, 17))


def test_ssim_refuses_a_picture_below_its_window() -> None:
    with pytest.raises(InvalidInputError, match="11 px"):
        ssim(noise(0, 10), noise(1, 10))
