"""The output picture: surroundings at the size asked for, with the restored faces in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.faces import blend
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.strength import Layers, mixed


def render(photo: Photo, patches: Sequence[blend.Patch], options: RestoreOptions, *, one_channel: bool) -> Photo:
    """The photo at its output size with the faces pasted in."""
    ground = _ground(photo, options, one_channel=one_channel)
    return ground.with_pixels(_pasted(ground.pixels, patches, one_channel=one_channel), ground.alpha)


def render_at(
    photo: Photo,
    patches: Mapping[int, blend.Patch],
    strengths: Mapping[int, float],
    options: RestoreOptions,
    *,
    one_channel: bool,
) -> Photo:
    """The same with each face at its strength; ``patches`` and ``strengths`` by the number of the face."""
    ground = _ground(photo, options, one_channel=one_channel)
    full = _pasted(ground.pixels, list(patches.values()), one_channel=one_channel)
    layers = Layers(without=ground.pixels, full=full, places=patches)
    return ground.with_pixels(layers.at(strengths), ground.alpha)


def _ground(photo: Photo, options: RestoreOptions, *, one_channel: bool) -> Photo:
    """The photo at its output size, without restored faces."""
    pixels, alpha = photo.pixels, photo.alpha
    if options.background is not None:
        colour = np.repeat(pixels[..., None], 3, axis=2) if photo.is_grey else pixels
        ground = options.background(colour, options.scale)
        if one_channel:
            ground = np.round(ground @ blend.LUMA).astype(pixels.dtype)
            ground = ground if photo.is_grey else np.repeat(ground[..., None], 3, axis=2)
    else:
        ground = _enlarge(pixels, options.scale)
    return photo.with_pixels(ground, None if alpha is None else _enlarge(alpha, options.scale))


def _pasted(ground: NDArray[Any], patches: Sequence[blend.Patch], *, one_channel: bool) -> NDArray[Any]:
    if not patches:
        return ground
    if not one_channel:
        return blend.paste(ground, patches)
    # Pasting one channel keeps grey exactly grey, whatever the arithmetic rounds.
    flat = [replace(patch, pixels=np.ascontiguousarray(patch.pixels[..., 0])) for patch in patches]
    grey = blend.paste(ground if ground.ndim == 2 else np.ascontiguousarray(ground[..., 0]), flat)
    return grey if ground.ndim == 2 else np.repeat(grey[..., None], 3, axis=2)


def render_aligned_at(photo: Photo, face: blend.Float32 | None, strength: float, side: int) -> Photo:
    """As `render_aligned`, at a strength; without a face, the photo at that size."""
    without = photo.with_pixels(
        _resize(photo.pixels, side, side), None if photo.alpha is None else _resize(photo.alpha, side, side)
    )
    if face is None:
        return without
    full = render_aligned(photo, face, side)
    return full.with_pixels(mixed(without.pixels, full.pixels, np.full((side, side), strength, np.float32)), full.alpha)


def render_aligned(photo: Photo, face: blend.Float32, side: int) -> Photo:
    """The restored face itself, ``side`` x ``side``, in the photo's pixel type."""
    levels = np.iinfo(photo.pixels.dtype).max
    values = np.round(np.clip(face, 0, 1) * levels).astype(photo.pixels.dtype)
    if photo.is_grey:
        values = values[..., 0]
    alpha = None if photo.alpha is None else _resize(photo.alpha, side, side)
    return photo.with_pixels(_resize(values, side, side), alpha)


def _enlarge(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return _resize(pixels, pixels.shape[1] * factor, pixels.shape[0] * factor)


def _resize(pixels: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LANCZOS4)
