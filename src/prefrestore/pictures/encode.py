"""How a photo is written: which formats, what each of them can hold, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from prefrestore.errors import ImageWriteError
from prefrestore.files.atomic import written_beside
from prefrestore.pictures import metadata
from prefrestore.pictures.cmyk import rgb_to_cmyk
from prefrestore.pictures.formats import (
    HOLDS_16_BIT,
    HOLDS_ALPHA,
    HOLDS_CMYK,
    HOLDS_METADATA,
    LARGEST_SIDE,
    WRITABLE_SUFFIXES,
    format_of,
)
from prefrestore.pictures.tiff import write_tiff

__all__ = ["WRITABLE_SUFFIXES", "write_photo"]

if TYPE_CHECKING:
    from prefrestore.pictures.photo import Photo


def write_photo(photo: Photo, path: str | Path) -> tuple[str, ...]:
    """Write ``photo`` whole or not at all, in the format that the name's ending says (one of
    WRITABLE_SUFFIXES).

    Returns one sentence for each thing that this format cannot hold. Raises ImageWriteError, naming the file,
    for an unknown ending, a picture larger than the format allows, no permission, or a full disk.
    """
    path = Path(path)
    kind = format_of(path)
    width, height = photo.size
    limit = LARGEST_SIDE.get(kind, 2**31 - 1)
    if max(width, height) > limit:
        raise ImageWriteError(f"{path}: {kind} holds at most {limit} px a side, the picture is {width} x {height}")
    pixels, alpha, notes = _fit(photo, kind)
    try:
        with written_beside(path) as part:
            if kind == "TIFF":
                write_tiff(part, pixels, alpha, photo)
            elif pixels.dtype == np.uint16:
                part.write_bytes(_deep_png(pixels, alpha, photo))
            else:
                image, icc = _to_pillow(photo, pixels, alpha, kind)
                image.save(part, format=kind, **_options(photo, kind, image.mode, icc))
            with part.open("rb+") as file:
                # Without this a power cut after the rename could leave an empty file under the final name.
                os.fsync(file.fileno())
    except (ValueError, KeyError, SyntaxError) as error:
        raise ImageWriteError(f"cannot write {path} as {kind}: {error}") from error
    return tuple(notes)


def _fit(photo: Photo, kind: str) -> tuple[NDArray[Any], NDArray[Any] | None, list[str]]:
    """Pixels and alpha in a form that ``kind`` holds, and what was given up."""
    pixels, alpha, notes = photo.pixels, photo.alpha, []
    if pixels.ndim == 2 and pixels.dtype == np.uint16 and alpha is not None and kind in HOLDS_16_BIT:
        # Neither OpenCV's PNG writer nor Pillow's TIFF reader has deep grey with alpha; equal channels say
        # the same.
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if alpha is not None and kind not in HOLDS_ALPHA:
        notes.append(f"{kind} has no transparency: the picture was laid on white")
        top = np.iinfo(pixels.dtype).max
        cover = (alpha if pixels.ndim == 2 else alpha[..., None]).astype(np.float64) / top
        pixels = np.round(pixels * cover + top * (1 - cover)).astype(pixels.dtype)
        alpha = None
    if pixels.dtype == np.uint16 and kind not in HOLDS_16_BIT:
        notes.append(f"{kind} has 8 bits a channel: the other 8 were rounded off")
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        alpha = None if alpha is None else ((alpha.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if photo.cmyk is not None and kind not in HOLDS_CMYK:
        notes.append(f"{kind} has no CMYK: the picture is written as sRGB")
    said = [name for name in ("icc", "exif", "xmp") if getattr(photo, name)]
    if said and kind not in HOLDS_METADATA:
        notes.append(f"{kind} holds no {', '.join(said)}")
    return pixels, alpha, notes


def _to_pillow(
    photo: Photo, pixels: NDArray[Any], alpha: NDArray[Any] | None, kind: str
) -> tuple[Image.Image, bytes | None]:
    """The image and the profile that goes with it."""
    if photo.cmyk is not None and kind in HOLDS_CMYK and pixels.ndim == 3 and alpha is None:
        return Image.fromarray(rgb_to_cmyk(pixels, photo.cmyk), "CMYK"), photo.cmyk.icc
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image, photo.icc


def _options(photo: Photo, kind: str, mode: str, icc: bytes | None) -> dict[str, Any]:
    """Arguments of Pillow's save(); only those with a value, because some writers take None for a value."""
    exif, said = photo.exif, photo.options
    options: dict[str, Any] = {}
    if kind in HOLDS_METADATA:
        options = {"icc_profile": icc, "exif": exif, "dpi": photo.dpi}
    if kind == "JPEG":
        # 4:4:4 at 95: one more generation of JPEG that nobody sees.
        options |= {"quality": 95, "subsampling": 0, "progressive": said.get("progressive") or None}
        options |= {"xmp": photo.xmp, "comment": said.get("comment"), "extra": said.get("iptc") or None}
    elif kind == "PNG" and photo.xmp:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", photo.xmp.decode("utf-8", "replace"))
        options["pnginfo"] = chunks
    elif kind == "WEBP":
        del options["dpi"]
        lossless = bool(said.get("lossless"))
        options |= {"xmp": photo.xmp, "quality": 95, "lossless": lossless, "exact": True, "method": 4}
    return {name: value for name, value in options.items() if value is not None}


def _deep_png(pixels: NDArray[Any], alpha: NDArray[Any] | None, photo: Photo) -> bytes:
    """A 16-bit PNG of 1 to 4 channels; OpenCV packs the pixels, the metadata chunks are put in behind."""
    import cv2

    channels = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    if alpha is not None:
        channels = np.dstack([channels, alpha])
    packed = cv2.imencode(".png", np.ascontiguousarray(channels))[1].tobytes()
    return metadata.add_png_chunks(packed, icc=photo.icc, exif=photo.exif, xmp=photo.xmp, dpi=photo.dpi)
