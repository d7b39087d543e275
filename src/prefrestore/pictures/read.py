"""Photos from files.

Read: what Pillow reads, one picture a file, up to ``MAX_PIXELS``. Greyscale, 16-bit, alpha, CMYK and palettes
become one of four forms (grey or RGB, 8 or 16 bits), and go back to what they were where the output's format
can hold it.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.pictures import metadata
from prefrestore.pictures.cmyk import Cmyk, cmyk_to_rgb
from prefrestore.pictures.opencv import quiet_opencv
from prefrestore.pictures.photo import Photo

# Twice Pillow's MAX_IMAGE_PIXELS, the line at which Pillow itself refuses a picture as a decompression bomb:
# half a gigabyte as 8-bit RGB. A 30,000 x 5,900 panorama opens, a 30,000 x 30,000 square of a few kilobytes
# does not.
MAX_PIXELS = 178_956_970
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)
# warnings.catch_warnings changes what the whole process sees, so one thread at a time may be inside.
_OPENING = threading.Lock()
T = TypeVar("T")


def as_photo(picture: Photo | Path | str | Image.Image | NDArray[Any]) -> Photo:
    """Any kind of picture as a Photo: a path is read; an array is H x W, H x W x 3 (RGB) or x 4 (RGBA), 8 or
    16 bits.
    """
    if isinstance(picture, Photo):
        return picture
    if isinstance(picture, (str, Path)):
        return read_photo(picture)
    if isinstance(picture, Image.Image):
        return _from_pillow(picture, None)
    array = np.asarray(picture)
    if array.dtype not in (np.uint8, np.uint16) or 0 in array.shape:
        raise InvalidInputError(f"a picture is an array of uint8 or uint16, not {array.dtype} of shape {array.shape}")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        return Photo(pixels=array, mode="L" if array.ndim == 2 else "RGB")
    if array.ndim == 3 and array.shape[2] == 4:
        pixels, alpha = np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3])
        return Photo(pixels=pixels, alpha=alpha, mode="RGBA")
    raise InvalidInputError(f"a picture is H x W, H x W x 3 or H x W x 4, not {array.shape}")


def read_photo(path: str | Path) -> Photo:
    """Read one picture.

    Raises ImageReadError, naming the file: it cannot be read, is no picture or a damaged one, has more than
    MAX_PIXELS, is an animation or has several pages, or has a pixel type without a meaning here (floating
    point).
    """
    return _read(Path(path), _from_pillow)


class Header(NamedTuple):
    """What a file says before its pixels are read."""

    size: tuple[int, int]
    """Width and height as they are stored, whatever the orientation says."""
    format: str
    """Pillow's name of it."""


def read_header(path: str | Path) -> Header:
    """The header alone, for a look at what somebody sent; raises what `read_photo` would raise of it."""
    return _read(Path(path), lambda image, _: Header(image.size, image.format or "PNG"))


def _read(path: Path, take: Callable[[Image.Image, Path], T]) -> T:
    """``take`` of the opened picture; what goes wrong is an ImageReadError."""
    try:
        with path.open("rb") as file:
            image = _open(file, path)
            with image:
                return take(image, path)
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{path} is not a picture of a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageReadError(f"{path} is too large to open safely: {error}") from error
    except MemoryError as error:
        raise ImageReadError(f"{path} does not fit into memory") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageReadError(f"cannot read {path}: {error.strerror}") from error
        raise ImageReadError(f"{path} is truncated or damaged ({error})") from error


def _open(file: io.BufferedReader, path: Path) -> Image.Image:
    """The header only; Pillow's own warning below its limit is not for us, the limit is checked here."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file)
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise ImageReadError(f"{path} is {width} x {height} px, more than the {limit} million that are safe")
    frames = getattr(image, "n_frames", 1)
    # An MPO is a JPEG with further pictures for other devices behind it (stereo, depth); the first one is the
    # photo.
    if frames > 1 and image.format != "MPO":
        what = f"has {frames} pages" if image.format == "TIFF" else f"is an animation of {frames} frames"
        raise ImageReadError(f"{path} {what}; save the one to restore as a picture of its own")
    return image


def _from_pillow(image: Image.Image, path: Path | None) -> Photo:
    name = str(path or "the picture")
    notes: list[str] = []
    # Loading closes the file, so what needs it comes first.
    deep = ";16" in _rawmode(image) and image.mode in ("RGB", "RGBA", "LA")
    content = _bytes(image, -1 if deep else 64)
    exif, xmp = image.info.get("exif"), _xmp(image)
    if image.format == "TIFF":
        try:
            exif = metadata.exif_of_tiff(image)
        except ValueError as error:
            notes.append(f"the EXIF block is damaged and was left out ({error})")
    image.load()
    pixels, alpha, mode, cmyk = _decode(image, content if deep else None, name, notes)
    info = image.info
    # Pillow and OpenCV both turn a TIFF upright themselves.
    orientation = 1 if image.format == "TIFF" else metadata.orientation_of(exif, xmp)
    dpi = info.get("dpi")
    if orientation in (5, 6, 7, 8) and dpi:
        dpi = (dpi[1], dpi[0])
    return Photo(
        pixels=metadata.upright(pixels, orientation),
        alpha=None if alpha is None else metadata.upright(alpha, orientation),
        path=path,
        format={"MPO": "JPEG"}.get(image.format or "PNG", image.format or "PNG"),
        mode=mode,
        icc=None if cmyk else info.get("icc_profile") or None,
        exif=metadata.exif_upright(exif) if exif else None,
        xmp=metadata.xmp_upright(xmp) if xmp else None,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
        cmyk=replace(cmyk, inks=metadata.upright(cmyk.inks, orientation)) if cmyk else None,
        options={
            "lossless": image.format == "WEBP" and b"VP8L" in content,
            "progressive": bool(info.get("progressive")),
            "comment": info.get("comment") if image.format in ("JPEG", "MPO") else None,
            "iptc": metadata.jpeg_iptc(image),
        },
        notes=tuple(notes),
    )


def _decode(
    image: Image.Image, deep: bytes | None, name: str, notes: list[str]
) -> tuple[NDArray[Any], NDArray[Any] | None, str, Cmyk | None]:
    """Pixels, alpha, the file's mode, and its inks; ``deep``: the whole file, if it has 16-bit colour."""
    mode = image.mode
    if deep is not None:
        pixels, alpha = _decode_deep(image, deep, name)
        return pixels, alpha, f"{mode};16", None
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), None, "I;16", None
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageReadError(f"{name} has 32-bit integer pixels, which are not supported")
        return values.astype(np.uint16), None, "I;16", None
    if mode == "F":
        raise ImageReadError(f"{name} has floating-point pixels, which are not supported")
    if mode == "CMYK":
        cmyk = Cmyk(inks=np.array(image), icc=image.info.get("icc_profile") or None)
        rgb, note = cmyk_to_rgb(cmyk)
        notes += [note] if note else []
        return rgb, None, mode, cmyk
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        grey = mode in ("1", "L", "LA", "La")
        both = np.array(image.convert("RGBA"))
        pixels = np.ascontiguousarray(both[..., 0] if grey else both[..., :3])
        return pixels, np.ascontiguousarray(both[..., 3]), mode, None
    return np.array(image.convert("L" if mode in ("1", "L") else "RGB")), None, mode, None


def _decode_deep(image: Image.Image, content: bytes, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """16-bit colour, which Pillow would cut down to 8 bits, through OpenCV."""
    import cv2

    with quiet_opencv():
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
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


def _bytes(image: Image.Image, count: int) -> bytes:
    """The file's first ``count`` bytes (-1: all of them); nothing for an image that has no file."""
    file = getattr(image, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    file.seek(0)
    content = file.read(count)
    file.seek(place)
    return bytes(content)


def _xmp(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if packet is None and image.format == "TIFF":
        packet = image.tag_v2.get(700)  # type: ignore[attr-defined]
    if isinstance(packet, str):
        packet = packet.encode()
    return bytes(packet) if packet else None
