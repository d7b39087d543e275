"""Similarity alignment of a face to the FFHQ template, and the crop itself, free of aliasing.

Points are in pixel coordinates: the centre of the first pixel is (0, 0). A matrix is 2 x 3 and takes a point
of the photo to a point of the crop.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrestore.errors import InvalidInputError

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

# Left eye, right eye, nose tip, left and right mouth corner in a 512 px FFHQ crop, as face restorers of the
# field (GFPGAN, CodeFormer, RestoreFormer) align by. "Left" is the left of the picture. YuNet puts the points
# of FFHQ-aligned training faces (2,080 measured) lower by 3 px at the eyes, 10 at the nose and 4 at the
# mouth, so a face aligned by YuNet's points lies 4.7 px higher here, 0.5 % larger, than in FFHQ's own crop:
# well inside the spread of real faces.
FFHQ_TEMPLATE_512 = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]])


def ffhq_template(size: int) -> Floats:
    """The five template points, 5 x 2 (x, y), in a crop of ``size`` pixels; pixel centres are kept when
    scaling.
    """
    return scale_points(FFHQ_TEMPLATE_512, size / 512)


def scale_points(points: ArrayLike, factor: float) -> Floats:
    """Points of a picture after it was resized by ``factor``: half-pixel offsets are respected."""
    return (np.asarray(points, dtype=np.float64) + 0.5) * factor - 0.5


def estimate_similarity(points: ArrayLike, template: ArrayLike) -> Floats:
    """The least-squares similarity (rotation, one scale, shift; no mirror) that takes N x 2 ``points`` to
    ``template``.

    With centred points p_i, q_i as complex numbers, the minimiser of sum |a p_i - q_i|^2 is
    a = sum conj(p_i) q_i / sum |p_i|^2; this equals Umeyama's solution (IEEE PAMI 13(4), 1991, eq. 40-43)
    in the plane when mirrors are excluded. Returns 2 x 3. Raises InvalidInputError if the points coincide.
    """
    source = np.asarray(points, dtype=np.float64)
    target = np.asarray(template, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise InvalidInputError(f"need two N x 2 sets of points, got {source.shape} and {target.shape}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise InvalidInputError("the points of a face are not finite numbers")
    p = (source - source.mean(0)) @ (1, 1j)
    q = (target - target.mean(0)) @ (1, 1j)
    spread = np.vdot(p, p).real
    a = np.vdot(p, q) / spread if spread > 1e-12 else 0j
    if abs(a) < 1e-12:
        raise InvalidInputError("the points of a face coincide, so it cannot be aligned")
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])


def similarity_scale(matrix: ArrayLike) -> float:
    """Crop pixels for each photo pixel: below 1 the crop is smaller than the face in the photo."""
    return float(np.sqrt(abs(np.linalg.det(np.asarray(matrix, dtype=np.float64)[:, :2]))))


def invert(matrix: ArrayLike) -> Floats:
    """The 2 x 3 inverse of a 2 x 3 affine matrix."""
    full = np.asarray(matrix, dtype=np.float64)
    linear = np.linalg.inv(full[:, :2])
    return np.column_stack([linear, -linear @ full[:, 2]])


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Floats:
    """N x 2 points through a 2 x 3 matrix."""
    full = np.asarray(matrix, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ full[:, :2].T + full[:, 2]


def rescale_output(matrix: ArrayLike, factor: float) -> Floats:
    """``matrix`` for a photo that was enlarged by ``factor``: it takes points of the enlarged photo to the
    crop.
    """
    full = np.asarray(matrix, dtype=np.float64)
    half = 0.5 / factor - 0.5
    return np.column_stack([full[:, :2] / factor, full[:, 2] + full[:, :2] @ (half, half)])


def rescale_crop(matrix: ArrayLike, factor: float) -> Floats:
    """``matrix`` for a crop of ``factor`` times the size: it takes points of the photo to the other crop."""
    full = np.asarray(matrix, dtype=np.float64)
    return np.column_stack([full[:, :2] * factor, scale_points(full[:, 2], factor)])


def crop_face(image: Array, matrix: ArrayLike, size: int) -> Array:
    """The ``size`` x ``size`` crop that ``matrix`` cuts out of ``image`` (H x W or H x W x C; uint8, uint16
    or float32).

    A face larger than the crop is first averaged down by whole factors, then sampled at twice the size and
    averaged: so no detail folds over into moire. Beyond the photo's edge the picture is mirrored.
    """
    if size < 1 or image.ndim not in (2, 3) or 0 in image.shape:
        raise InvalidInputError(f"cannot crop {size} px from an array of shape {image.shape}")
    full = np.asarray(matrix, dtype=np.float64)
    region, offset = _region(image, full, size)
    full = np.column_stack([full[:, :2], full[:, 2] + full[:, :2] @ offset])
    scale = similarity_scale(full)
    factor = max(1, int(1 / scale))
    if factor > 1:
        height, width = (max(1, round(side / factor)) for side in region.shape[:2])
        fx, fy = region.shape[1] / width, region.shape[0] / height
        region = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)
        linear = full[:, :2] * (fx, fy)
        full = np.column_stack([linear, full[:, 2] + full[:, :2] @ (0.5 * fx - 0.5, 0.5 * fy - 0.5)])
    flags = cv2.INTER_CUBIC
    if scale >= 1:
        return cv2.warpAffine(region, full, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
    doubled = np.column_stack([full[:, :2] * 2, full[:, 2] * 2 + 0.5])
    large = cv2.warpAffine(region, doubled, (size * 2, size * 2), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def _region(image: Array, matrix: Floats, size: int) -> tuple[Array, Floats]:
    """The part of ``image`` under the crop with a margin for the filters, and its offset (x, y) in the image.

    Working on a part keeps memory small and stays below OpenCV's 32,767 px limit. The margin is the mirror's
    width: a crop that hangs over the photo's edge mirrors what lies inside, so the part must be as wide as
    the overhang.
    """
    corners = transform_points(invert(matrix), [(0, 0), (size, 0), (0, size), (size, size)])
    low, high = corners.min(0), corners.max(0)
    margin = 4 + 4 / similarity_scale(matrix)
    bound = np.array([image.shape[1], image.shape[0]], dtype=np.float64)
    overhang = np.maximum(np.maximum(-low, high - bound), 0)
    x0, y0 = np.clip(np.floor(low - margin - overhang), 0, bound - 1).astype(int)
    x1, y1 = np.clip(np.ceil(high + margin + overhang), 1, bound).astype(int)
    return image[y0:y1, x0:x1], np.array([x0, y0], dtype=np.float64)
