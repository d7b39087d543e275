"""The output picture: surroundings at the size asked for, with the restored faces in their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.faces import blend
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.strength import Layers


def render(
    photo: Photo,
    patches: Mapping[int, blend.Patch],
    strengths: Mapping[int, float],
    options: RestoreOptions,
    *,
    one_channel: bool,
) -> tuple[Photo, Layers | None]:
    """The photo at its output size with the faces pasted in, each at its strength; and what it was made from.

    Args:
        patches, strengths: by the number of the face.
    """
    pixels, alpha = photo.pixels, photo.alpha
    if options.background is not None:
        colour = np.repeat(pixels[..., None], 3, axis=2) if photo.is_grey else pixels
        ground = options.background(colour, options.scale)
        if one_channel:
            ground = np.round(ground @ blend.LUMA).astype(pixels.dtype)
            ground = ground if photo.is_grey else np.repeat(ground[..., None], 3, axis=2)
    else:
        ground = _enlarge(pixels, options.scale)
    if alpha is not None:
        alpha = _enlarge(alpha, options.scale)
    if not patches:
        return photo.with_pixels(ground, alpha), None
    if one_channel:
        # Pasting one channel keeps grey exactly grey, whatever the arithmetic rounds.
        flat = [replace(patch, pixels=np.ascontiguousarray(patch.pixels[..., 0])) for patch in patches.values()]
        grey = blend.paste(ground if ground.ndim == 2 else np.ascontiguousarray(ground[..., 0]), flat)
        result = grey if photo.is_grey else np.repeat(grey[..., None], 3, axis=2)
    else:
        result = blend.paste(ground, list(patches.values()))
    layers = Layers(without=ground, full=result, places=patches)
    return photo.with_pixels(layers.at(strengths), alpha), layers


def render_aligned(photo: Photo, patch: blend.Patch | None, strength: float, side: int) -> tuple[Photo, Layers | None]:
    """The restored face itself, ``side`` x ``side``, in the photo's pixel type; and what it was made from.

    Without one, the photo at that size.
    """
    alpha = None if photo.alpha is None else _resize(photo.alpha, side, side)
    without = _resize(photo.pixels, side, side)
    if patch is None:
        return photo.with_pixels(without, alpha), None
    levels = np.iinfo(photo.pixels.dtype).max
    values = np.round(np.clip(patch.pixels, 0, 1) * levels).astype(photo.pixels.dtype)
    if photo.is_grey:
        values = values[..., 0]
    whole = np.ones((side, side), np.float32)
    place = blend.Patch(patch.pixels, np.array([[1.0, 0, 0], [0, 1.0, 0]]), whole)
    layers = Layers(without=without, full=_resize(values, side, side), places={0: place})
    return photo.with_pixels(layers.at({0: strength}), alpha), layers


def _enlarge(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return _resize(pixels, pixels.shape[1] * factor, pixels.shape[0] * factor)


def _resize(pixels: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LANCZOS4)
