"""A picture in memory: its pixels as they are meant to be seen, and everything else that its file says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.pictures.cmyk import Cmyk


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A picture, the right way up, and what its file said about it."""

    pixels: NDArray[Any]
    """H x W (grey) or H x W x 3 (RGB), uint8 or uint16, in the colour space of ``icc`` (sRGB without one)."""
    alpha: NDArray[Any] | None = None
    """H x W of the same type; None is opaque."""
    path: Path | None = None
    format: str = "PNG"
    """Pillow's name of the file's format."""
    mode: str = "RGB"
    """The file's own pixel type: 1, L, LA, P, RGB, RGBA, CMYK, I;16, RGB;16, RGBA;16, LA;16, ..."""
    icc: bytes | None = None
    exif: bytes | None = None
    """With the orientation set to upright."""
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    cmyk: Cmyk | None = None
    """The file's own inks, if it was CMYK."""
    options: dict[str, Any] = field(default_factory=dict)
    """How the file was encoded, as far as it is kept (lossless WebP, JPEG segments)."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing of the file that could not be kept."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def is_grey(self) -> bool:
        """Whether the pixels have one channel."""
        return self.pixels.ndim == 2

    def rgb8(self) -> NDArray[np.uint8]:
        """H x W x 3 uint8, for detectors and for looking at."""
        pixels = self.pixels
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels

    def with_pixels(self, pixels: NDArray[Any], alpha: NDArray[Any] | None) -> Photo:
        """The same photo with other pixels (and possibly another size)."""
        return replace(self, pixels=pixels, alpha=alpha)

    def about(self, pixels: NDArray[Any]) -> Photo:
        """Another picture in this one's colours (its faces, a comparison): H x W x 3, with the profile and no more."""
        if icc_space(self.icc) != "GRAY":
            return Photo(pixels=pixels, icc=self.icc)
        # A profile of greys fits one channel, which is enough unless something is drawn in colours.
        if (pixels == pixels[..., :1]).all():
            return Photo(pixels=np.ascontiguousarray(pixels[..., 0]), mode="L", icc=self.icc)
        return Photo(pixels=pixels)


def icc_space(icc: bytes | None) -> str:
    """The colour space of a profile's data: ``RGB``, ``GRAY``, ``CMYK``, ``Lab``, ...; empty without a profile."""
    return (icc or b"")[16:20].decode("latin-1").strip()
