"""Pixels out of an opened picture: four forms (grey or RGB, 8 or 16 bits), with alpha and inks beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefrestore.errors import ImageReadError
from prefrestore.pictures.cmyk import Cmyk, cmyk_to_rgb
from prefrestore.pictures.opencv import quiet_opencv


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """pixels: H x W or H x W x 3, uint8 or uint16; alpha: H x W of that type. mode: the file's own, ``RGB;16``."""

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    mode: str
    cmyk: Cmyk | None = None
    notes: tuple[str, ...] = ()


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """H x W (x C) ``pixels`` as they are meant to be seen; ``orientation`` is EXIF's 1..8 (EXIF 2.32, tag
    274).
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def deep_content(image: Image.Image, file: IO[bytes] | None) -> bytes | None:
    """The whole file, if it has 16-bit colour, which Pillow would cut down to 8 bits; to be asked before loading."""
    if file is None or ";16" not in _rawmode(image) or image.mode not in ("RGB", "RGBA", "LA"):
        return None
    file.seek(0)
    return file.read()


def decode(image: Image.Image, deep: bytes | None, name: str, *, page: int = 0) -> Decoded:
    """The pixels of a loaded image. deep: what `deep_content` found.

    Raises ImageReadError for pixel types without a meaning here.
    """
    mode = image.mode
    if deep is not None:
        pixels, alpha = _decode_deep(image, deep, name, page)
        return Decoded(pixels=pixels, alpha=alpha, mode=f"{mode};16")
    if mode.startswith("I;16"):
        return Decoded(pixels=np.asarray(image).astype(np.uint16), mode="I;16")
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageReadError(f"{name} has 32-bit integer pixels, which are not supported")
        return Decoded(pixels=values.astype(np.uint16), mode="I;16")
    if mode in ("F", "LAB"):
        what = "floating-point pixels" if mode == "F" else "Lab colours"
        raise ImageReadError(f"{name} has {what}, which are not supported")
    if mode == "CMYK":
        cmyk = Cmyk(inks=np.array(image), icc=image.info.get("icc_profile") or None)
        rgb, note = cmyk_to_rgb(cmyk)
        return Decoded(pixels=rgb, mode=mode, cmyk=cmyk, notes=(note,) if note else ())
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        grey = mode in ("1", "L", "LA", "La")
        both = np.array(image.convert("RGBA"))
        pixels = np.ascontiguousarray(both[..., 0] if grey else both[..., :3])
        return Decoded(pixels=pixels, alpha=np.ascontiguousarray(both[..., 3]), mode=mode)
    return Decoded(pixels=np.array(image.convert("L" if mode in ("1", "L") else "RGB")), mode=mode)


def _decode_deep(image: Image.Image, content: bytes, name: str, page: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """16-bit colour through OpenCV."""
    import cv2

    data = np.frombuffer(content, np.uint8)
    with quiet_opencv():
        try:
            if page:
                values = (cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[1] or [None])[0]
            else:
                values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise ImageReadError(f"{name} is truncated or damaged ({error.err or 'OpenCV'})") from error
    # The size of a TIFF that lies on its side is the turned one by now.
    if values is None or values.dtype != np.uint16 or sorted(values.shape[:2]) != sorted(image.size):
        raise ImageReadError(f"{name} has 16-bit colour in a form that is not supported")
    if values.ndim == 2:
        return values, None
    alpha = np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None
    if image.mode == "LA":
        return np.ascontiguousarray(values[..., 0]), alpha
    return np.ascontiguousarray(values[..., 2::-1]), alpha


def _rawmode(image: Image.Image) -> str:
    """How the file stores samples, e.g. ``RGB;16B``; only known before the pixels are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""
