"""Distances of a restoration to its ground truth that need no network: PSNR and SSIM, on RGB.

Pictures are H,W,3 uint8 arrays (or float arrays in 0..255) of one shape.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError

Picture = NDArray[np.generic]

_PEAK = 255.0


def _pair(first: Picture, second: Picture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if first.shape != second.shape or first.ndim != 3 or first.shape[2] != 3:
        raise InvalidInputError(
            f"metrics compare two H,W,3 pictures of one shape, not {first.shape} and {second.shape}."
        )
    return first.astype(np.float64), second.astype(np.float64)


def psnr(first: Picture, second: Picture) -> float:
    """Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`, the error taken over all pixels and RGB
    channels.

    Infinite for equal pictures.

    Raises:
        InvalidInputError: the shapes differ or are not H,W,3.
    """
    a, b = _pair(first, second)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(_PEAK**2 / error))


def ssim(first: Picture, second: Picture) -> float:
    """Structural similarity, -1..1, 1 for equal pictures; the mean of the three RGB channels' values.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment" (IEEE TIP 13(4), 2004), equation 13, with the
    paper's window (11x11 Gaussian, sigma 1.5) and constants (K1 0.01, K2 0.03), over the places where the
    window fits whole.

    Raises:
        InvalidInputError: the shapes differ or are not H,W,3, or a side is below 11 px.
    """
    a, b = _pair(first, second)
    if min(a.shape[:2]) < 11:
        raise InvalidInputError(f"SSIM needs 11 px or more, not {a.shape[1]}x{a.shape[0]}.")

    def local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(np.mean(above / below))


def sharpness(picture: Picture) -> float:
    """Variance of the Laplacian of luminance (0..255): 0 for a flat picture, and falling with blur.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000), with OpenCV's four-neighbour
    kernel. It depends on the picture's size, and noise raises it too.

    Raises:
        InvalidInputError: the picture is not H,W,3.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise InvalidInputError(f"sharpness needs an H,W,3 picture, not {picture.shape}.")
    luma = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return float(cv2.Laplacian(luma, cv2.CV_64F).var())
