"""What a photo shows of a face beyond the model's size: how much of it the restored face may keep."""

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# Bands finer than a Gaussian of FINE px stand for what is finer still; they are compared over a neighbourhood whose
# Gaussian is AROUND of the crop's side wide.
FINE, AROUND = 1.5, 1 / 64
SLIGHT = 1e-5  # variance of coded values in 0..1: bands below it (under a level of 255) tell nothing


def kept_detail(restored: Float32, seen: Float32) -> Float32:
    """How much of the finest detail of ``seen`` is also in ``restored``: S x S in 0..1, of S x S (x 3) in 0..1.

    The coefficient of a least-squares fit of one band by the other around each place: 1 where the restoration left
    the detail as it was or drew it stronger, 0 where it took it for noise and left it out.
    """
    old, new = (_finest(picture) for picture in (seen, restored))
    width = max(seen.shape[0] * AROUND, 1.0)
    common, power = (cv2.GaussianBlur(each, (0, 0), width) for each in (old * new, old * old))
    return np.clip(common / (power + np.float32(SLIGHT)), 0, 1).astype(np.float32)


def _finest(picture: Float32) -> Float32:
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    return (grey - cv2.GaussianBlur(grey, (0, 0), FINE)).astype(np.float32)
