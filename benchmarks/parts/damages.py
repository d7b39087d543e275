"""What photos suffer from, made by a seed: functions of a square RGB face (uint8) and a generator."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.degrade import synthetic

Image = NDArray[np.uint8]
Damage = Callable[[Image, np.random.Generator], Image]


def blurred(face: Image, sigma: float) -> Image:
    """A Gaussian of so many px at 256."""
    return np.asarray(cv2.GaussianBlur(face, (0, 0), sigma * len(face) / 256), np.uint8)


def strokes(face: Image, rng: np.random.Generator) -> Image:
    """A blur of 3 px at 256, under 25 straight scratches."""
    out = np.ascontiguousarray(blurred(face, 3))
    for _ in range(25):
        x0, y0, x1, y1 = (int(value) for value in rng.integers(0, len(face), 4))
        level = int(rng.choice([20, 230, 255]))
        cv2.line(out, (x0, y0), (x1, y1), (level,) * 3, int(rng.integers(1, 3)))
    return out


def mosaic(cell: int) -> Damage:
    """Cells of so many px."""

    def make(face: Image, rng: np.random.Generator) -> Image:
        count = max(1, round(len(face) / cell))
        small = cv2.resize(face, (count, count), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)

    return make


def jpeg(quality: int) -> Damage:
    """A JPEG of this quality."""
    return lambda face, rng: synthetic.jpeg(face, quality)


def faded(gain: float, offset: float) -> Damage:
    """Coded values times ``gain`` plus ``offset`` (0..1), under a blur of 2 px at 256."""
    return lambda face, rng: synthetic.to_uint8(blurred(face, 2).astype(np.float32) * gain + offset * 255)


def noisy(sigma: float) -> Damage:
    """Noise of so many levels."""
    return lambda face, rng: synthetic.to_uint8(synthetic.add_noise(face.astype(np.float32), sigma, rng))


def cut(left: float, top: float, right: float, bottom: float) -> Damage:
    """What is left of a picture that ends there (shares of its sides), under a blur of 2 px at 256."""

    def make(face: Image, rng: np.random.Generator) -> Image:
        x0, y0, x1, y1 = (round(share * len(face)) for share in (left, top, right, bottom))
        return np.ascontiguousarray(blurred(face, 2)[y0:y1, x0:x1])

    return make


def drawn(face: Image, rng: np.random.Generator) -> Image:
    """A cartoon: flat colours inside dark lines."""
    flat = face
    for _ in range(4):
        flat = cv2.bilateralFilter(flat, 9, 40, 9)
    flat = (flat // 32 * 32 + 16).astype(np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 4)
    return np.asarray(cv2.bitwise_and(flat, flat, mask=lines), np.uint8)


def sketched(face: Image, rng: np.random.Generator) -> Image:
    """A pencil drawing: grey divided by its blurred negative."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    soft = 255 - cv2.GaussianBlur(255 - grey, (0, 0), 6 * len(face) / 256)
    return np.repeat(cv2.divide(grey, np.maximum(soft, 1), scale=256)[..., None], 3, axis=2)


def degraded(preset: str) -> Damage:
    """One of the package's presets, at 256 px."""

    def make(face: Image, rng: np.random.Generator) -> Image:
        small = cv2.resize(face, (256, 256), interpolation=cv2.INTER_AREA)
        return synthetic.degrade(np.asarray(small, np.uint8), preset, rng).lq

    return make
