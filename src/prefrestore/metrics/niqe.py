"""NIQE: how natural a picture's local statistics are, with no reference picture; lower is better.

Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer" (IEEE SPL 20(3), 2013).
The models of natural statistics in `niqe_faces.npz` and `niqe_faces_512.npz` are our own fits to sharp faces at 256 px
and at 512 px, made by `python tools/fit_niqe.py faces/train --table faces.csv` (and `--size 512 --least 480`); so the
values are not those of papers that use the authors' model of landscapes and streets. Blocks are 64 px instead of 96,
for a 256 px face holds sixteen of them instead of four.
"""

from functools import cache
from importlib import resources
from math import lgamma
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefrestore.errors import InvalidInputError

Floats = NDArray[np.float64]

BLOCK = 64
# a block is fitted when its sharpness exceeds this part of its picture's sharpest block (section II.B)
SHARP = 0.75
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
MODEL_FILES = {256: "niqe_faces.npz", 512: "niqe_faces_512.npz"}
"""Fits that come with the package, by the side of the faces in px."""


class NaturalModel(NamedTuple):
    """A multivariate Gaussian of the 36 features: mean (36) and covariance (36 x 36)."""

    mean: Floats
    covariance: Floats


@cache
def _shape_table() -> tuple[Floats, Floats]:
    """Shapes 0.2..10 and the ratio `G(2/a)^2 / (G(1/a) G(3/a))`, G the gamma function, which grows with the
    shape."""
    shapes = np.arange(0.2, 10.0005, 0.001)
    ratios = [np.exp(2 * lgamma(2 / a) - lgamma(1 / a) - lgamma(3 / a)) for a in shapes]
    return shapes, np.array(ratios)


def _shape(ratio: float) -> float:
    shapes, ratios = _shape_table()
    return float(np.interp(ratio, ratios, shapes))


def _spread(shape: float) -> float:
    """`sqrt(G(1/a) / G(3/a))`: the scale of a generalised Gaussian of shape a and standard deviation 1."""
    return float(np.exp((lgamma(1 / shape) - lgamma(3 / shape)) / 2))


def fit_ggd(values: Floats) -> tuple[float, float]:
    """Shape and scale of a zero-mean generalised Gaussian (equation 4), by matching E|x|^2 / E x^2."""
    power = float(np.mean(values**2))
    if power <= 1e-12:  # a flat block has no distribution; the narrowest stands for it
        return 0.2, 0.0
    shape = _shape(float(np.mean(np.abs(values))) ** 2 / power)
    return shape, float(np.sqrt(power)) * _spread(shape)


def fit_aggd(values: Floats) -> tuple[float, float, float, float]:
    """Shape, mean, left and right scale of an asymmetric generalised Gaussian (equations 7 and 8).

    By the moment matching of Lasmar, Stitou, Berthoumieu, "Multiscale skewed heavy tailed model for texture
    analysis" (ICIP 2009).
    """
    left, right = values[values < 0], values[values > 0]
    power = float(np.mean(values**2))
    if power <= 1e-12 or not left.size or not right.size:
        return 0.2, 0.0, 0.0, 0.0
    deviation_left, deviation_right = float(np.sqrt(np.mean(left**2))), float(np.sqrt(np.mean(right**2)))
    skew = deviation_left / deviation_right
    ratio = float(np.mean(np.abs(values))) ** 2 / power
    shape = _shape(ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2)
    scale_left, scale_right = deviation_left * _spread(shape), deviation_right * _spread(shape)
    mean = (scale_right - scale_left) * float(np.exp(lgamma(2 / shape) - lgamma(1 / shape)))
    return shape, mean, scale_left, scale_right


def normalise(luma: Floats) -> tuple[Floats, Floats]:
    """Locally normalised luminance and the local deviation (equations 1 to 3), for luma in 0..255."""

    def blur(values: Floats) -> Floats:
        return cv2.GaussianBlur(values, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)

    mean = blur(luma)
    deviation = np.sqrt(np.abs(blur(luma**2) - mean**2))
    return (luma - mean) / (deviation + 1), deviation


def _block_features(block: Floats) -> list[float]:
    features = [*fit_ggd(block)]
    for shift in _NEIGHBOURS:
        features.extend(fit_aggd(block * np.roll(block, shift, (0, 1))))
    return features


def features(picture: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Features and sharpness of the blocks of an H,W,3 RGB picture in 0..255: N x 36, and N.

    Raises:
        InvalidInputError: the picture is not H,W,3 or smaller than one block.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < BLOCK:
        raise InvalidInputError(f"NIQE needs an H,W,3 picture of {BLOCK} px or more, not {picture.shape}.")
    luma = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    rows, columns = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
    luma = luma[: rows * BLOCK, : columns * BLOCK]
    half = Image.fromarray(luma.astype(np.float32)).resize(
        (columns * BLOCK // 2, rows * BLOCK // 2), Image.Resampling.BICUBIC
    )
    parts, sharpness = [], np.zeros(0)
    for level, size in ((luma, BLOCK), (np.asarray(half, dtype=np.float64), BLOCK // 2)):
        normal, deviation = normalise(level)
        corners = [(y * size, x * size) for y in range(rows) for x in range(columns)]
        parts.append([_block_features(normal[y : y + size, x : x + size]) for y, x in corners])
        if size == BLOCK:
            sharpness = np.array([deviation[y : y + size, x : x + size].mean() for y, x in corners])
    return np.hstack([np.array(part) for part in parts]), sharpness


def fit_model(pictures: list[NDArray[np.generic]]) -> NaturalModel:
    """The Gaussian of the sharp blocks of undistorted pictures."""
    chosen = []
    for picture in pictures:
        rows, sharpness = features(picture)
        chosen.append(rows[sharpness > SHARP * sharpness.max()])
    blocks = np.vstack(chosen)
    return NaturalModel(blocks.mean(0), np.cov(blocks, rowvar=False))


@cache
def face_model(size: int = 256) -> NaturalModel:
    """The fit to sharp faces of a size in `MODEL_FILES`, which comes with the package."""
    with resources.files("prefrestore.metrics").joinpath(MODEL_FILES[size]).open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return NaturalModel(stored["mean"].astype(np.float64), stored["covariance"].astype(np.float64))


def niqe(picture: NDArray[np.generic], model: NaturalModel | None = None) -> float:
    """The distance of the picture's statistics from natural ones (equation 10): 0 or more, lower is better.

    Args:
        picture: H,W,3 RGB in 0..255, 128 px or more on each side (two blocks at least give a covariance).
        model: another model than the face model, which is that of the size nearer to the picture's shorter side.

    Raises:
        InvalidInputError: the picture is too small or not H,W,3.
    """
    rows, _ = features(picture)
    model = model or face_model(min(MODEL_FILES, key=lambda size: abs(size - min(picture.shape[:2]))))
    if len(rows) < 2:
        raise InvalidInputError(f"NIQE needs two blocks of {BLOCK} px, not {picture.shape}.")
    apart = model.mean - rows.mean(0)
    pooled = (model.covariance + np.cov(rows, rowvar=False)) / 2
    return float(np.sqrt(apart @ np.linalg.pinv(pooled) @ apart))
