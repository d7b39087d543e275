"""Photos without colours of their own (grey, sepia, toned prints) stay so: a model must not paint them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.faces.blend import LUMA, Float32

# A print counts as toned if, over the picture, colour is a smooth curve of luma up to this many levels of 255
# in 95 % of the pixels. Measured: 47 of 48 scans of real old portraits leave 0 to 6.9 (the last, 11, is
# printed in two inks), 330 faces in colour 8 and more (severely degraded ones; sharp ones 9 and more), two
# group photos in colour 40.
TONED_LEVELS = 7.0
SAMPLED_SIDE = 256  # px; the picture is averaged down to this, which also averages colour noise away
DEGREE = 3


@dataclass(frozen=True)
class Tone:
    """How a picture without colours of its own is coloured: as luma alone, or by a curve of luma."""

    curve: NDArray[np.float64] | None
    """4 x 3: coefficients of luma^0..luma^3 for red, green and blue minus luma; None: grey."""

    def apply(self, coded: Float32) -> Float32:
        """H x W x 3 coded values in 0..1, with the colours of ``coded`` replaced by the tone's."""
        luma: Float32 = (coded @ LUMA).astype(np.float32)
        if self.curve is None:
            return np.repeat(luma[..., None], 3, axis=2)
        return np.clip(luma[..., None] + _powers(luma) @ self.curve, 0, 1).astype(np.float32)


def tone_of(rgb: NDArray[np.uint8]) -> Tone | None:
    """The tone of an H x W x 3 uint8 picture, or None if it has colours of its own."""
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return Tone(None)
    factor = SAMPLED_SIDE / max(rgb.shape[:2])
    small = rgb
    if factor < 1:
        size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    coded = (small.reshape(-1, 3) / np.float32(255)).astype(np.float32)
    # Too few pixels fit any curve.
    if len(coded) < 256:
        return None
    luma = coded @ LUMA
    colour = coded - luma[:, None]
    curve = np.linalg.lstsq(_powers(luma), colour.astype(np.float64), rcond=None)[0].astype(np.float64)
    off = np.abs(colour - _powers(luma) @ curve).max(axis=1) * 255
    return Tone(curve) if np.percentile(off, 95) < TONED_LEVELS else None


def _powers(luma: NDArray[np.floating]) -> NDArray[np.float64]:
    return luma.astype(np.float64)[..., None] ** np.arange(DEGREE + 1)
