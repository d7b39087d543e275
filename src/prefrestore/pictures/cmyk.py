"""Printing inks: CMYK to RGB to work on, and back so that untouched pixels keep their inks exactly."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms


@dataclass(frozen=True, kw_only=True)
class Cmyk:
    """The inks of a CMYK file: H x W x 4 uint8, 255 is full ink; ``icc`` says what they look like."""

    inks: NDArray[np.uint8]
    icc: bytes | None


def cmyk_to_rgb(cmyk: Cmyk) -> tuple[NDArray[np.uint8], str | None]:
    """H x W x 3 sRGB through the inks' profile, or by the plain formula without one; and a note if the
    profile fails.
    """
    image = Image.fromarray(cmyk.inks, "CMYK")
    converted, note = _through_profile(image, cmyk.icc, back=False)
    return np.array(converted if converted is not None else image.convert("RGB")), note


def rgb_to_cmyk(rgb: NDArray[np.uint8], cmyk: Cmyk) -> NDArray[np.uint8]:
    """Inks for H x W x 3 sRGB pixels; those that still look as ``cmyk`` did keep its inks to the byte.

    The way to RGB and back has no inverse (four numbers from three), so only changed pixels go through it.
    """
    image = Image.fromarray(rgb)
    converted, _ = _through_profile(image, cmyk.icc, back=True)
    inks = np.array(converted if converted is not None else image.convert("CMYK"))
    if inks.shape == cmyk.inks.shape:
        same = (rgb == cmyk_to_rgb(cmyk)[0]).all(axis=2)
        inks[same] = cmyk.inks[same]
    return inks


def _through_profile(image: Image.Image, icc: bytes | None, *, back: bool) -> tuple[Image.Image | None, str | None]:
    if icc is None:
        return None, None
    try:
        inks: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        srgb: Any = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        source, target, mode = (srgb, inks, "CMYK") if back else (inks, srgb, "RGB")
        return ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode=mode), None
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return None, f"the CMYK profile cannot be used ({error}); colours were converted without it"
