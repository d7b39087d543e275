"""An uncertainty map as colours over the face: cold is seen through, hot is a guess."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]

HOTTEST = 0.05
"""The standard deviation, of pixels in 0..1, at and above which the map is at its hottest: about what one pixel in a
hundred of the bench reaches."""
# Black-body colours from dark violet to pale yellow: lightness grows steadily, so the order is also seen in grey
# print and by the colour-blind. Stops at equal distances, sRGB.
RAMP = np.array(
    [[35, 10, 80], [87, 16, 110], [138, 34, 106], [188, 55, 84], [227, 89, 51], [249, 140, 10], [252, 255, 164]],
    dtype=np.float32,
) / np.float32(255)
OPACITY = 0.8
# How wide the neighbourhood is over which the map is averaged, as a share of the crop's side: four pixels of 256.
SCALE = 1 / 64
SMALLEST_LEGEND = 160  # px; a narrower picture gets the bar alone


def colours(share: ArrayLike) -> Float32:
    """Shares of the hottest (any shape, clipped to 0..1) -> the ramp's sRGB in 0..1, with an axis of 3 more."""
    place = np.clip(np.asarray(share, dtype=np.float32), 0, 1) * (len(RAMP) - 1)
    low = np.minimum(place.astype(int), len(RAMP) - 2)
    part = (place - low)[..., None]
    return (RAMP[low] * (1 - part) + RAMP[low + 1] * part).astype(np.float32)


def smooth_std(std: Float32, sigma: float) -> Float32:
    """The root of the Gaussian average of the variance: H,W -> H,W; ``sigma`` in px."""
    variance = np.square(std, dtype=np.float32)
    variance = cv2.GaussianBlur(variance, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REFLECT)
    return np.sqrt(np.maximum(variance, 0))


def overlay(face: Float32, std: Float32, *, hottest: float = HOTTEST) -> Float32:
    """The face (S,S,3 in 0..1) in grey, under the colours of its map (S,S): the hotter, the less is seen through."""
    share = np.clip(smooth_std(std, SCALE * len(std)) / hottest, 0, 1)
    grey = face.mean(axis=2, keepdims=True)
    alpha = OPACITY * np.sqrt(share)[..., None]
    return ((1 - alpha) * grey + alpha * colours(share)).astype(np.float32)


def heat_picture(
    picture: NDArray[np.uint8], size: tuple[int, int], *, hottest: float = HOTTEST
) -> NDArray[np.uint8]:
    """The overlaid picture (H,W,3) at ``size`` (width, height), with a legend below it."""
    if picture.shape[1::-1] != size:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LANCZOS4)
    return np.concatenate([picture, legend(size[0], hottest=hottest)])


def legend(width: int, *, hottest: float = HOTTEST) -> NDArray[np.uint8]:
    """A strip as wide as the picture: the ramp, from 0 to the hottest in levels of 255."""
    from PIL import Image, ImageDraw, ImageFont

    size = int(np.clip(width / 45, 10, 28))
    font = ImageFont.load_default(size)
    strip = Image.new("RGB", (width, 2 * size), "white")
    pen = ImageDraw.Draw(strip)
    texts: tuple[str, str] = ("the samples agree", f"a guess: they differ by {hottest * 255:.0f} of 255 levels or more")
    room = width - 6 * size - sum(pen.textlength(text, font=font) for text in texts)
    if width < SMALLEST_LEGEND or room < 2 * size:
        texts = ("agree", f"guess: {hottest * 255:.0f} of 255")
        room = max(width - 4 * size - sum(pen.textlength(text, font=font) for text in texts), 1)
    left = size + pen.textlength(texts[0], font=font) + size / 2
    bar = np.round(colours(np.linspace(0, 1, max(int(room), 1)))[None] * 255).astype(np.uint8)
    strip.paste(Image.fromarray(np.repeat(bar, size, axis=0)), (int(left), size // 2))
    pen.text((size / 2, size / 2), texts[0], fill="black", font=font)
    pen.text((left + bar.shape[1] + size / 2, size / 2), texts[1], fill="black", font=font)
    return np.asarray(strip)
