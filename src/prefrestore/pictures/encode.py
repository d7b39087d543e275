"""How a photo is written: its pixels in a form that the format holds, and what is said about them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from prefrestore.errors import ImageWriteError, InvalidInputError
from prefrestore.files.atomic import written_beside
from prefrestore.pictures import formats
from prefrestore.pictures.cmyk import rgb_to_cmyk
from prefrestore.pictures.exif import exif_for, xmp_for
from prefrestore.pictures.extras import jpeg_segments, unheld
from prefrestore.pictures.formats import WRITABLE_SUFFIXES, format_of
from prefrestore.pictures.photo import Photo, icc_space
from prefrestore.pictures.png import deep_png
from prefrestore.pictures.tiff import DAMAGED_DIRECTORY, Page, write_tiff
from prefrestore.pictures.warned import warnings_heard

__all__ = ["WRITABLE_SUFFIXES", "write_pages", "write_photo"]

# One more generation of a lossy picture that nobody sees.
QUALITY = 95
# A JPEG's segment holds 65,535 bytes, its length and the block's name included.
_SEGMENT = 65_500
_FAULTS = (*DAMAGED_DIRECTORY, RuntimeError, MemoryError)


def write_photo(
    photo: Photo, target: str | Path | IO[bytes], *, quality: int | None = None, kind: str | None = None
) -> tuple[str, ...]:
    """Write ``photo`` whole or not at all, in the format that the name's ending says (one of
    WRITABLE_SUFFIXES).

    Args:
        target: a file's name, or an open binary file, which then needs ``kind``.
        quality: 1..100 of JPEG, WebP and AVIF; None is 95.
        kind: the format as an ending, ``jpg``, in place of the name's.

    Returns one sentence for each thing that this format cannot hold. Raises InvalidInputError for a bad quality or a
    stream without a kind; ImageWriteError, naming the file, for an unknown ending, a picture larger than the format
    allows, no permission, or a full disk.
    """
    return _write([photo], target, quality=quality, kind=kind)


def write_pages(photos: Iterable[Photo], path: str | Path) -> tuple[str, ...]:
    """Write one TIFF of several pages, each as it comes; returns and raises what `write_photo` does."""
    if format_of(path) != "TIFF":
        raise ImageWriteError(f"{path}: only TIFF holds several pages")
    return _write(photos, path, quality=None, kind=None)


def _write(
    photos: Iterable[Photo], target: str | Path | IO[bytes], *, quality: int | None, kind: str | None
) -> tuple[str, ...]:
    named = isinstance(target, (str, Path))
    if not named and kind is None:
        raise InvalidInputError("a stream has no name: say the kind of file, for example kind='png'")
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidInputError(f"quality lies between 1 and 100, not {quality}")
    name = str(target) if named else "the picture"
    wanted = format_of(f"{name}.{kind}" if kind is not None else name)
    notes: list[str] = []
    try:
        with _place(target) as file:
            pages = (_fit(photo, wanted, name, notes) for photo in photos)
            if wanted == "TIFF":
                write_tiff(file, pages)
            else:
                _write_one(file, next(pages), wanted, quality, notes)
    except (ImageWriteError, InvalidInputError):
        raise
    except _FAULTS as error:
        raise ImageWriteError(f"cannot write {name} as {wanted}: {error or type(error).__name__}") from error
    if quality is not None and wanted not in formats.HAS_QUALITY:
        notes.append(f"{wanted} has no quality to choose")
    return tuple(dict.fromkeys(notes))


@contextmanager
def _place(target: str | Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """An empty file to write into; what is written gets its name, or into the stream, when the block succeeds."""
    if not isinstance(target, (str, Path)):
        content = io.BytesIO()
        yield content
        target.write(content.getvalue())
        return
    with written_beside(Path(target)) as part, part.open("wb+") as file:
        yield file
        # Without this a power cut after the rename could leave an empty file under the final name.
        file.flush()
        os.fsync(file.fileno())


def _write_one(file: IO[bytes], page: Page, kind: str, quality: int | None, notes: list[str]) -> None:
    photo = page.photo
    if page.pixels.dtype == np.uint16:
        chunks = photo.options.get("png", ())
        said: dict[str, Any] = {"icc": photo.icc, "exif": photo.exif, "xmp": photo.xmp, "dpi": photo.dpi}
        file.write(deep_png(page.pixels, page.alpha, chunks=chunks, **said))
        return
    image, icc = _to_pillow(page, kind)
    image.save(file, format=kind, **_options(photo, kind, icc, quality))


def _fit(photo: Photo, kind: str, name: str, notes: list[str]) -> Page:
    """Pixels, alpha and what is said in a form that ``kind`` holds; what was given up is added to ``notes``."""
    width, height = photo.size
    limit = formats.LARGEST_SIDE.get(kind, 2**31 - 1)
    if max(width, height) > limit:
        raise ImageWriteError(f"{name}: {kind} holds at most {limit} px a side, the picture is {width} x {height}")
    if photo.path is not None and photo.format not in formats.FORMATS.values():
        notes.append(f"{photo.format} is not written here: the picture becomes {kind}")
    pixels, alpha = photo.pixels, photo.alpha
    if pixels.ndim == 2 and pixels.dtype == np.uint16 and alpha is not None and kind in formats.HOLDS_16_BIT:
        # Neither OpenCV's PNG writer nor Pillow's TIFF reader has deep grey with alpha; equal channels say
        # the same.
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if alpha is not None and kind not in formats.HOLDS_ALPHA:
        notes.append(f"{kind} has no transparency: the picture was laid on white")
        top = np.iinfo(pixels.dtype).max
        cover = (alpha if pixels.ndim == 2 else alpha[..., None]).astype(np.float64) / top
        pixels = np.round(pixels * cover + top * (1 - cover)).astype(pixels.dtype)
        alpha = None
    if pixels.dtype == np.uint16 and kind not in formats.HOLDS_16_BIT:
        notes.append(f"{kind} has 8 bits a channel: the other 8 were rounded off")
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        alpha = None if alpha is None else ((alpha.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if photo.cmyk is not None and kind not in formats.HOLDS_CMYK:
        notes.append(f"{kind} has no CMYK: the picture is written as sRGB")
    return Page(pixels=pixels, alpha=alpha, photo=_said(photo, pixels, kind, notes))


def _said(photo: Photo, pixels: NDArray[Any], kind: str, notes: list[str]) -> Photo:
    """The photo with what it says about itself true of the new pixels, and short enough for ``kind``."""
    said: dict[str, Any] = {"icc": photo.icc, "exif": photo.exif, "xmp": photo.xmp}
    notes += unheld(photo.options, kind)
    lost = [name for name, value in said.items() if value]
    if kind not in formats.HOLDS_METADATA:
        notes += [f"{kind} holds no {', '.join(lost)}"] if lost else []
        return replace(photo, icc=None, exif=None, xmp=None)
    if icc_space(photo.icc) == "GRAY" and (pixels.ndim == 3 or kind in formats.ALWAYS_COLOUR):
        notes.append(f"{kind} has no grey of this kind: the colour profile, one of greys, was left out")
        said["icc"] = None
    said["exif"] = exif_for(photo.exif, photo.size) if photo.exif else None
    said["xmp"] = xmp_for(photo.xmp, photo.size) if photo.xmp else None
    for name in ("exif", "xmp"):
        if kind == "JPEG" and len(said[name] or b"") > _SEGMENT:
            notes.append(f"the {name.upper()} block is larger than a JPEG's segment and was left out")
            said[name] = None
    if kind == "TIFF" and said["exif"] and not _is_whole(said["exif"]):
        notes.append("the EXIF block is damaged and was left out")
        said["exif"] = None
    return replace(photo, **said)


def _is_whole(exif: bytes) -> bool:
    """Whether Pillow can read all of the block and write it as a TIFF's directories."""
    try:
        with warnings_heard() as heard:
            write_tiff(io.BytesIO(), [Page(pixels=np.zeros((1, 1), np.uint8), alpha=None, photo=_only(exif))])
    except DAMAGED_DIRECTORY:
        return False
    return not heard


def _only(exif: bytes) -> Photo:
    return Photo(pixels=np.zeros((1, 1), np.uint8), exif=exif)


def _to_pillow(page: Page, kind: str) -> tuple[Image.Image, bytes | None]:
    """The image and the profile that goes with it."""
    photo, pixels, alpha = page.photo, page.pixels, page.alpha
    if photo.cmyk is not None and kind in formats.HOLDS_CMYK and pixels.ndim == 3 and alpha is None:
        return Image.fromarray(rgb_to_cmyk(pixels, photo.cmyk), "CMYK"), photo.cmyk.icc
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image, photo.icc


def _options(photo: Photo, kind: str, icc: bytes | None, quality: int | None) -> dict[str, Any]:
    """Arguments of Pillow's save(); only those with a value, because some writers take None for a value."""
    said = photo.options
    options: dict[str, Any] = {}
    if kind in formats.HOLDS_METADATA:
        options = {"icc_profile": icc, "exif": photo.exif}
    if kind in ("JPEG", "PNG"):
        options["dpi"] = photo.dpi
    if kind == "JPEG":
        options |= {"quality": quality or QUALITY, "subsampling": 0, "progressive": said.get("progressive") or None}
        options |= {"xmp": photo.xmp, "comment": _short(said.get("comment")), "extra": jpeg_segments(said) or None}
    elif kind == "PNG":
        options["pnginfo"] = _chunks(photo)
    elif kind == "WEBP":
        # A quality that is asked for is one of a lossy picture.
        lossless = bool(said.get("lossless")) and quality is None
        options |= {"xmp": photo.xmp, "quality": quality or QUALITY, "lossless": lossless, "exact": True, "method": 4}
    elif kind == "AVIF":
        options |= {"xmp": photo.xmp, "quality": quality or QUALITY, "subsampling": "4:4:4"}
    return {name: value for name, value in options.items() if value is not None}


def _short(comment: bytes | None) -> bytes | None:
    return comment[:_SEGMENT] if comment else None


def _chunks(photo: Photo) -> PngImagePlugin.PngInfo | None:
    chunks = PngImagePlugin.PngInfo()
    if photo.xmp:
        chunks.add_itxt("XML:com.adobe.xmp", photo.xmp.decode("utf-8", "replace"))
    for name, data in photo.options.get("png", ()):
        chunks.add(name, data)
    return chunks if chunks.chunks else None
