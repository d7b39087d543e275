"""Synthetic degradation: a sharp face in, a seeded pair of a degraded face and its target out.

The chain is blur -> downsample -> noise -> JPEG -> resize back (GFPGAN, arXiv 2101.04061, section 4.1).
Between blur and downsample an old photograph gets its grain and damage, see `old_photo`.
Every image is H,W,3 RGB; `degrade` takes and gives uint8, the steps between work on float32 in [0,255].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from prefrestore.degrade import old_photo
from prefrestore.degrade.presets import DegradationMixture, DegradationRange, Interval, get_preset
from prefrestore.errors import InvalidInputError

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class DegradationParameters:
    """One draw from a range, in px and grey levels of the image it is for; equal parameters and noise give
    equal bytes."""

    sigma: tuple[float, float]
    angle: float
    kernel_size: int
    factor: float
    noise: float
    quality: int
    old_photo: old_photo.OldPhoto | None


@dataclass(frozen=True, kw_only=True)
class DegradedPair:
    """lq: degraded, uint8 H,W,3, same size as the input. target: what a restorer should give back, uint8
    H,W,3: the input itself, or the input in the old photograph's tone (a restorer must neither paint nor
    re-tone)."""

    lq: Image
    target: Image
    parameters: DegradationParameters


def blur_kernel(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> FloatImage:
    """Gaussian density on a size x size grid (odd), float32, sum 1; the x axis is turned by `angle` radians.

    exp(-d' S^-1 d / 2) with S = R diag(sigma_x^2, sigma_y^2) R'. Raises InvalidInputError for an even size or
    sigma <= 0.
    """
    if size < 1 or size % 2 == 0 or sigma_x <= 0 or sigma_y <= 0:
        raise InvalidInputError(f"a blur kernel of size {size} with sigma {sigma_x}, {sigma_y} does not exist")
    grid = np.arange(size, dtype=np.float64) - size // 2
    cos, sin = np.cos(angle), np.sin(angle)
    along = (grid[None, :] * cos + grid[:, None] * sin) / sigma_x
    across = (grid[:, None] * cos - grid[None, :] * sin) / sigma_y
    kernel = np.exp(-0.5 * (along**2 + across**2))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def blur(image: FloatImage, size: int, sigma: tuple[float, float], angle: float = 0.0) -> FloatImage:
    """`image` (float32 H,W,3) under `blur_kernel`; edges are mirrored. Equal sigmas take two one-dimensional
    passes."""
    # Beyond four sigma a Gaussian holds less than 1e-4 of its mass: the kernel may shrink, which keeps mild
    # blurs cheap.
    size = min(size, 2 * int(np.ceil(4 * max(sigma))) + 1)
    if size == 1:
        return image
    if sigma[0] == sigma[1]:
        line = cv2.getGaussianKernel(size, sigma[0], cv2.CV_32F)
        return _float(cv2.sepFilter2D(image, cv2.CV_32F, line, line, borderType=cv2.BORDER_REFLECT_101))
    kernel = blur_kernel(size, sigma[0], sigma[1], angle)
    return _float(cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101))


def resize(image: npt.NDArray[Any], width: int, height: int, *, scanned: bool = False) -> npt.NDArray[Any]:
    """Bilinear without a prefilter in both directions: shrinking aliases, as careless software does.

    `scanned` averages over the area of each new pixel, as a scanner does, so that a fine screen does not turn
    to moire.
    """
    if (width, height) == (image.shape[1], image.shape[0]):
        return image
    method = cv2.INTER_AREA if scanned else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method))


def downsample(image: FloatImage, factor: float, *, scanned: bool = False) -> FloatImage:
    """Both sides divided by `factor` >= 1 and rounded, at least 1 px."""
    if factor < 1:
        raise InvalidInputError(f"a downsampling factor of {factor} enlarges")
    height, width = image.shape[:2]
    return _float(resize(image, max(1, round(width / factor)), max(1, round(height / factor)), scanned=scanned))


def add_noise(image: FloatImage, sigma: float, rng: np.random.Generator, *, monochrome: bool = False) -> FloatImage:
    """White Gaussian noise of `sigma` grey levels; `monochrome` gives the three channels the same noise."""
    if sigma <= 0:
        return image
    shape = (*image.shape[:2], 1) if monochrome else image.shape
    return _float(image + np.float32(sigma) * rng.standard_normal(shape, dtype=np.float32))


def jpeg(image: Image, quality: int) -> Image:
    """Through the JPEG coder (4:2:0) and back, uint8 RGB. Quality 1 to 100, else InvalidInputError."""
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"JPEG quality {quality} is outside 1..100")
    done, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InvalidInputError(f"an image of {image.shape[1]}x{image.shape[0]} px cannot be stored as JPEG")
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    if decoded is None:
        raise InvalidInputError(f"the JPEG of an image of {image.shape[1]}x{image.shape[0]} px cannot be read back")
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8, copy=False)


def to_uint8(image: npt.NDArray[np.floating[Any]]) -> Image:
    """Rounded and clipped to 0..255."""
    return np.asarray(np.rint(np.clip(image, 0, 255)), dtype=np.uint8)


def sample_parameters(
    preset: DegradationRange | DegradationMixture, size: int, rng: np.random.Generator
) -> DegradationParameters:
    """Draws what happens to an image whose shorter side is `size` px."""
    chosen = preset.draw(rng) if isinstance(preset, DegradationMixture) else preset
    scaled = chosen.scaled(size)
    log = chosen.spread == "log"
    sigma_x = _draw(scaled.blur_sigma, log, rng)
    anisotropic = rng.random() < scaled.anisotropic
    sigma_y = _draw(scaled.blur_sigma, log, rng) if anisotropic else sigma_x
    angle = float(rng.uniform(0, np.pi)) if anisotropic else 0.0
    factor = _draw(scaled.downsample, log, rng)
    noise = _draw(scaled.noise, False, rng)
    quality = int(rng.integers(scaled.jpeg[0], scaled.jpeg[1] + 1))
    old = old_photo.draw_old_photo(size, rng) if rng.random() < scaled.old_photo else None
    return DegradationParameters(
        sigma=(sigma_x, sigma_y),
        angle=angle,
        kernel_size=scaled.kernel_size,
        factor=factor,
        noise=noise,
        quality=quality,
        old_photo=old,
    )


def apply_parameters(hq: Image, parameters: DegradationParameters, rng: np.random.Generator) -> DegradedPair:
    """Degrades `hq` (uint8 H,W,3) as `parameters` say; `rng` gives the noise, the grain and where the damage
    lies."""
    _check(hq)
    height, width = hq.shape[:2]
    old = parameters.old_photo
    target = hq if old is None else old_photo.apply_tone(hq, old.tone)
    image = blur(target.astype(np.float32), parameters.kernel_size, parameters.sigma, parameters.angle)
    if old is not None:
        image = old_photo.apply_damage(image, old, rng)
    image = downsample(image, parameters.factor, scanned=old is not None)
    # The grain of a print carries no colour of its own, and a grey picture has to stay grey.
    image = add_noise(image, parameters.noise, rng, monochrome=old is not None and old.tone.monochrome)
    stored = jpeg(to_uint8(image), parameters.quality)
    return DegradedPair(lq=resize(stored, width, height), target=np.array(target), parameters=parameters)


def degrade(hq: Image, preset: str | DegradationRange | DegradationMixture, rng: np.random.Generator) -> DegradedPair:
    """A degraded face and its target from a sharp one.

    hq: uint8 H,W,3 RGB of any size; lengths scale with its shorter side. preset: a name of `presets.PRESETS`,
    a range or a mixture. rng: the only source of chance; equal seeds give equal bytes. Raises
    InvalidInputError for anything else.
    """
    _check(hq)
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    return apply_parameters(hq, sample_parameters(chosen, min(hq.shape[:2]), rng), rng)


def _draw(interval: Interval, log: bool, rng: np.random.Generator) -> float:
    low, high = interval
    if log and low > 0:
        return float(min(high, max(low, np.exp(rng.uniform(np.log(low), np.log(high))))))
    return float(rng.uniform(low, high))


def _float(image: npt.NDArray[Any]) -> FloatImage:
    return image.astype(np.float32, copy=False)


def _check(hq: npt.NDArray[Any]) -> None:
    if not isinstance(hq, np.ndarray) or hq.dtype != np.uint8 or hq.ndim != 3 or hq.shape[2] != 3 or 0 in hq.shape:
        described = f"{hq.dtype} {hq.shape}" if isinstance(hq, np.ndarray) else type(hq).__name__
        raise InvalidInputError(f"degrade needs a uint8 H,W,3 RGB array, not {described}")
