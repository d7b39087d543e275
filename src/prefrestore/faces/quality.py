"""How sharp a face already is, and how far it is turned: the measures behind the rules for skipping."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrestore.errors import InvalidInputError

# Side of the crop that sharpness is measured at; the numbers below hold at this size only.
MEASURED_AT = 256
# Gradient ratios (see edge_ratio) of 166 aligned faces: sharp originals 1.20..1.47 (1st to 99th percentile,
# median 1.34), mildly degraded ones 1.05..1.28 (1.11), severely degraded ones 1.01..1.20 (1.04). Sharp faces
# that were only 64 px wide and then enlarged: 1.20; 96 px: 1.27; 128 px: 1.31.
BLURRED_RATIO, SHARP_RATIO = 1.02, 1.36
NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
NOISE_FREE = 2.0  # grey levels of 255; 95 % of the sharp originals lie below
# Ratios of bands (see fine_detail): enlarged from half the size, and as fine as pixels can show.
SOFT_DETAIL, SHARP_DETAIL = 0.62, 0.70
# Shares of white noise's variance that the two bands hold: 1 - 2 g(0) + |g|^2 of a Gaussian of 1 px, and between 1, 2.
FINE_NOISE, COARSE_NOISE = 0.76, 0.04
# Distance from the eyes' line to the nose tip, over the distance of the eyes, in a mean adult head (about 35
# mm / 64 mm).
NOSE_DEPTH = 0.55


def edge_ratio(grey: NDArray[np.uint8]) -> float:
    """Median of |grad G_1| / |grad G_2| at the strongest 5 % of the face's edges, in a square aligned crop.

    G_s is the picture after a Gaussian of s px. At an edge that is itself a step blurred by b px the ratio is
    sqrt((b^2 + 4) / (b^2 + 1)) (S. Zhuo and T. Sim, "Defocus map estimation from a single image", Pattern
    Recognition 44(9), 2011, eq. 5): 2 for a perfect step, 1 for no edge at all. Edges are chosen in the
    smoother picture, so noise does not pass for detail.
    """
    fine, coarse = (_gradient(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma)) for sigma in (1.0, 2.0))
    face = face_area(grey.shape[0])
    edges = face & (coarse >= np.percentile(coarse[face], 95)) & (coarse > 1e-3)
    return float(np.median(fine[edges] / coarse[edges])) if edges.any() else 1.0


def face_area(side: int) -> NDArray[np.bool_]:
    """Where an aligned crop shows the face, without hair and background: S x S."""
    y, x = np.mgrid[:side, :side] / side
    area: NDArray[np.bool_] = ((x - 0.5) / 0.33) ** 2 + ((y - 0.54) / 0.38) ** 2 < 1
    return area


def noise_level(grey: NDArray[np.uint8]) -> float:
    """The noise's standard deviation in grey levels: J. Immerkaer's mask (CVIU 64(2), 1996) with a median."""
    return float(np.median(np.abs(cv2.filter2D(grey.astype(np.float32), -1, NOISE_MASK)))) / 0.6745 / 6


def face_quality(crop: NDArray[np.uint8]) -> float:
    """Quality of an aligned S x S (x 3) uint8 crop, 0 (nothing left) to 1 (as sharp as a good photo at 256
    px).

    A small face that was enlarged into the crop has no fine edges and scores low, as it should. Hard edges
    count whatever they are, strokes and the borders of blocks too: see `prefrestore.faces.damage`.
    """
    grey = measured_grey(crop)
    sharpness = (edge_ratio(grey) - BLURRED_RATIO) / (SHARP_RATIO - BLURRED_RATIO)
    clean = np.exp(-max(noise_level(grey) - NOISE_FREE, 0.0) / 6)
    return float(np.clip(sharpness, 0, 1) * clean)


def fine_detail(crop: NDArray[np.uint8]) -> float:
    """How much of the finest detail that a crop's pixels can hold is there, 0 to 1; S x S (x 3) uint8.

    The face's band above a Gaussian of 1 px, over that between 1 and 2 px, both less what noise gives them. Skin
    without pores has little of it, so the limits leave sharp faces alone and tell only the plainer enlarged ones.
    """
    levels = crop if crop.ndim == 2 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    grey = levels.astype(np.float32)
    first, second = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1.0, 2.0))
    face, noise = face_area(grey.shape[0]), noise_level(levels) ** 2
    fine = max(float((grey - first)[face].var()) - FINE_NOISE * noise, 0.0)
    coarse = max(float((first - second)[face].var()) - COARSE_NOISE * noise, 1e-3)
    soft, sharp = SOFT_DETAIL, SHARP_DETAIL
    return float(np.clip((np.sqrt(fine / coarse) - soft) / (sharp - soft), 0, 1))


def noise_of(crop: NDArray[np.uint8]) -> float:
    """The noise's standard deviation in an aligned S x S (x 3) uint8 crop, in levels of 255."""
    return noise_level(measured_grey(crop))


def measured_grey(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A square crop, S x S (x 3) uint8, as grey at the size that everything is measured at."""
    if crop.dtype != np.uint8 or crop.ndim not in (2, 3) or crop.shape[0] != crop.shape[1]:
        raise InvalidInputError(f"quality needs a square uint8 crop, got {crop.dtype} {crop.shape}")
    grey = crop if crop.ndim == 2 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if grey.shape[0] != MEASURED_AT:
        kind = cv2.INTER_AREA if grey.shape[0] > MEASURED_AT else cv2.INTER_CUBIC
        grey = cv2.resize(grey, (MEASURED_AT, MEASURED_AT), interpolation=kind)
    return grey


def yaw_degrees(points: ArrayLike) -> float:
    """How far the face is turned sideways, 0 (frontal) to 90 (profile), from its five points (5 x 2).

    For a head turned by a, the nose tip leaves the middle of the eyes by depth * sin(a) while the eyes close
    up to distance * cos(a): the quotient is NOSE_DEPTH * tan(a). An estimate, good to about 10 degrees.
    """
    five = np.asarray(points, dtype=np.float64)
    eyes, mouth = five[:2].mean(0), five[3:].mean(0)
    down = mouth - eyes
    length = float(np.hypot(*down))
    if length < 1e-9:
        return 90.0
    right = np.array([down[1], -down[0]]) / length
    across = float((five[1] - five[0]) @ right)
    # Along the face's own axis, so that a tilted head does not count as turned.
    aside = abs(float((five[2] - eyes) @ right))
    return float(np.degrees(np.arctan2(aside, max(across, 0.0) * NOSE_DEPTH)))


def _gradient(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
