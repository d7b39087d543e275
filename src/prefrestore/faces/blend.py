"""Put restored faces back: colours of the photo, a soft mask, and mixing in linear light."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError
from prefrestore.faces.align import Floats, crop_face, invert, similarity_scale, transform_points
from prefrestore.faces.detail import kept_detail

Image = NDArray[Any]  # uint8 or uint16
Float32 = NDArray[np.float32]

TILE = 1024  # px; pasting works in tiles, so that memory does not grow with the photo
# The mask in units of the crop's side: a superellipse from the hairline to below the chin and out to the
# ears. It leaves out the corners, where neighbours and background are, because a face model invents those.
MASK_CENTRE = (0.5, 0.54)
MASK_RADII = (0.40, 0.44)
MASK_POWER = 2.4
MASK_CORE = 0.72  # share of the radius inside which the restored face counts fully
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, of coded values, as JPEG has it


@dataclass(frozen=True)
class Patch:
    """A restored face and where it goes."""

    pixels: Float32
    """S x S or S x S x 3, coded values (sRGB-like) in 0..1."""
    matrix: Floats
    """2 x 3: photo pixel to crop pixel, at the size of the photo that is pasted into."""
    mask: Float32
    """S x S, 0..1."""


def face_mask(size: int) -> Float32:
    """The feathered mask of an aligned crop, ``size`` x ``size`` in 0..1; exactly 0 on the crop's border."""
    if size < 4:
        raise InvalidInputError(f"a face mask needs a crop of 4 px or more, got {size}")
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    dx, dy = np.abs(x - MASK_CENTRE[0]) / MASK_RADII[0], np.abs(y - MASK_CENTRE[1]) / MASK_RADII[1]
    radius = (dx**MASK_POWER + dy**MASK_POWER) ** (1 / MASK_POWER)
    ramp = np.clip((1 - radius) / (1 - MASK_CORE), 0, 1)
    # Smootherstep (Perlin 2002): first and second derivatives vanish at both ends, so no edge shows.
    mask = ramp**3 * (ramp * (6 * ramp - 15) + 10)
    mask[[0, -1], :] = mask[:, [0, -1]] = 0
    return mask.astype(np.float32)


def share_outside(matrix: Floats, size: int, width: int, height: int) -> float:
    """How much of a face's mask lies outside a width x height photo, 0..1; ``matrix``: photo pixel to crop pixel."""
    side = 64  # enough points to tell a hundredth
    y, x = np.nonzero(face_mask(side))
    points = transform_points(invert(matrix), (np.stack([x, y], axis=1) + 0.5) * size / side - 0.5)
    inside = ((points >= -0.5) & (points <= (width - 0.5, height - 0.5))).all(axis=1)
    return 1 - float(inside.mean())


def colour_match(restored: Float32, reference: Float32) -> Float32:
    """``restored`` with the low frequencies of ``reference``: both S x S or S x S x 3, coded values in 0..1.

    Light and shade below 8 cycles or so across the crop, and colour below 16, are the input's: what a
    degraded face still tells reliably. Detail is the restored one's. restored = reference comes back
    unchanged. The difference is taken in coded values, split into luma and colour (a linear split: nothing is
    lost on the way).
    """
    if restored.shape != reference.shape:
        raise InvalidInputError(f"shapes differ: {restored.shape} and {reference.shape}")
    difference: Float32 = reference - restored
    side = restored.shape[0]
    if restored.ndim == 2:
        shift = _smooth(difference, side / 12)
    else:
        luma: Float32 = (difference @ LUMA).astype(np.float32)
        shift = _smooth(difference - luma[..., None], side / 24) + _smooth(luma, side / 12)[..., None]
    return np.clip(restored + shift, 0, 1).astype(np.float32)


def to_linear(coded: Float32) -> Float32:
    """Light from coded values, both 0..1 (IEC 61966-2-1, the sRGB curve)."""
    return np.where(coded <= 0.04045, coded / 12.92, ((np.maximum(coded, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_coded(linear: Float32) -> Float32:
    """Coded values from light, both 0..1: the inverse of ``to_linear``."""
    safe = np.maximum(linear, 0)
    return np.where(safe <= 0.0031308, safe * 12.92, 1.055 * safe ** (1 / 2.4) - 0.055).astype(np.float32)


def paste(image: Image, patches: Sequence[Patch]) -> Image:
    """A copy of ``image`` (H x W or H x W x 3; uint8 or uint16) with ``patches`` mixed in, in linear light.

    Pixels where every mask is 0 keep their bytes. Where masks overlap, the faces share the pixel, each by the
    fourth power of its mask: the nearer face wins, without a line between them, and the order of the patches
    has no effect.

    A face that is larger in the photo than its crop keeps what the photo shows beyond the crop's size, as far as the
    restoration kept the detail next to it (`prefrestore.faces.detail`): so none becomes softer than it was.
    """
    out = image.copy()
    if image.dtype not in (np.uint8, np.uint16):
        raise InvalidInputError(f"can paste into uint8 and uint16, not {image.dtype}")
    placed = [(_Placed.of(patch, image), patch_bounds(patch, image.shape[1], image.shape[0])) for patch in patches]
    height, width = image.shape[:2]
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            tile = (left, top, min(left + TILE, width), min(top + TILE, height))
            here = [(patch, _common(bounds, tile)) for patch, bounds in placed]
            here = [(patch, area) for patch, area in here if area[0] < area[2] and area[1] < area[3]]
            if here:
                _paste_tile(image, out, here)
    return out


def patch_bounds(patch: Patch, width: int, height: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the part of a width x height photo that the patch's crop can touch."""
    side = patch.mask.shape[0] - 1
    corners = transform_points(invert(patch.matrix), [(0, 0), (side, 0), (0, side), (side, side)])
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
    return max(low[0], 0), max(low[1], 0), min(high[0], width), min(high[1], height)


def coverage(patches: Sequence[Patch], width: int, height: int) -> Float32:
    """The union of the patches' masks in a width x height photo, H x W in 0..1."""
    total = np.zeros((height, width), dtype=np.float32)
    for patch in patches:
        x0, y0, x1, y1 = area = patch_bounds(patch, width, height)
        if x0 < x1 and y0 < y1:
            total[y0:y1, x0:x1] = np.maximum(total[y0:y1, x0:x1], warp_mask(patch.mask, patch.matrix, area))
    return total


def warp_mask(mask: Float32, matrix: Floats, area: tuple[int, int, int, int]) -> Float32:
    """A crop's mask (S x S) seen in the photo's rectangle ``area`` (x0, y0, x1, y1): 0 outside of the crop."""
    return _warp(mask, matrix, area, mask=True)


@dataclass(frozen=True)
class _Placed:
    """A patch, and of one that is larger in the photo: its crop as it was, and how much of the detail is kept."""

    patch: Patch
    seen: Float32 | None = None
    kept: Float32 | None = None

    @classmethod
    def of(cls, patch: Patch, image: Image) -> "_Placed":
        if similarity_scale(patch.matrix) >= 1:
            return cls(patch)
        crop = crop_face(image, patch.matrix, patch.mask.shape[0])
        seen = crop.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
        return cls(patch, seen, kept_detail(patch.pixels, seen))

    def shown(self, before: Float32, area: tuple[int, int, int, int]) -> Float32:
        """The face in the photo's rectangle ``area``, whose coded values are ``before``, in 0..1."""
        pixels = _warp(self.patch.pixels, self.patch.matrix, area)
        if self.seen is not None and self.kept is not None:
            beyond = before - _warp(self.seen, self.patch.matrix, area)
            pixels = pixels + beyond * _match(_warp(self.kept, self.patch.matrix, area), beyond)
        return np.clip(pixels, 0, 1)


def _paste_tile(image: Image, out: Image, here: list[tuple[_Placed, tuple[int, int, int, int]]]) -> None:
    areas = np.array([area for _, area in here])
    (x0, y0), (x1, y1) = areas[:, :2].min(0).tolist(), areas[:, 2:].max(0).tolist()
    levels = float(np.iinfo(image.dtype).max)
    before = image[y0:y1, x0:x1]
    coded_before = before.astype(np.float32) / np.float32(levels)
    base = to_linear(coded_before)
    weights = np.zeros(base.shape[:2], dtype=np.float32)
    union, mixed = weights.copy(), np.zeros_like(base)
    for placed, area in here:
        left, top, right, bottom = area
        inner = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
        mask = warp_mask(placed.patch.mask, placed.patch.matrix, area)
        light = to_linear(placed.shown(coded_before[inner], area))
        weight = mask**4
        weights[inner] += weight
        union[inner] = np.maximum(union[inner], mask)
        mixed[inner] += light * _match(weight, light)
    covered = weights > 0
    mixed /= _match(np.where(covered, weights, 1), mixed)
    alpha = _match(np.where(covered, union, 0).astype(np.float32), mixed)
    result = to_coded(base + alpha * (mixed - base))
    coded = np.clip(np.round(result * levels), 0, levels).astype(image.dtype)
    target = out[y0:y1, x0:x1]
    target[covered] = coded[covered]


def _warp(pixels: Float32, matrix: Floats, area: tuple[int, int, int, int], *, mask: bool = False) -> Float32:
    """``pixels`` of a crop seen in the photo's rectangle ``area`` (x0, y0, x1, y1).

    Where the crop is larger than its place in the photo, what the photo cannot show is filtered out first, or
    it would fold over. A mask is 0 outside of the crop; pixels go on there as they end, which the mask then
    hides.
    """
    x0, y0, x1, y1 = area
    scale = similarity_scale(matrix)
    full = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (x0, y0)])
    if scale > 1 and not mask:
        kernel = _lanczos(scale)
        pixels = cv2.sepFilter2D(pixels, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    # Cubic weights overshoot, which a mask must not.
    flags = (cv2.INTER_LINEAR if mask else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_CONSTANT if mask else cv2.BORDER_REPLICATE
    return cv2.warpAffine(pixels, full, (x1 - x0, y1 - y0), flags=flags, borderMode=border)


def _lanczos(scale: float) -> Float32:
    """Low-pass taps that keep what lies below half a cycle each ``scale`` pixels: a sinc under a sinc of two
    lobes.

    Unlike a box or a Gaussian it hardly dims what it keeps, so a face that goes to the crop and back stays
    sharp.
    """
    reach = int(np.ceil(2 * scale))
    x = np.arange(-reach, reach + 1) / scale
    taps = np.where(np.abs(x) < 2, np.sinc(x) * np.sinc(x / 2), 0)
    return (taps / taps.sum()).astype(np.float32)


def _smooth(values: Float32, sigma: float) -> Float32:
    return cv2.GaussianBlur(values, (0, 0), max(sigma, 0.5), borderType=cv2.BORDER_REFLECT)


def _match(weight: Float32, pixels: Float32) -> Float32:
    return weight if pixels.ndim == 2 else weight[..., None]


def _common(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
