"""TIFF files (TIFF 6.0) of 8 and 16 bits: Pillow has no 16-bit colour and loses EXIF beside compression."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from prefrestore.pictures.cmyk import rgb_to_cmyk
from prefrestore.pictures.exif import EXIF_IFD, GPS_IFD
from prefrestore.pictures.extras import DESCRIBING_TAGS, ICC_TAG, IPTC_TAG, PHOTOSHOP_TAG, XMP_TAG

if TYPE_CHECKING:
    from prefrestore.pictures.photo import Photo

STRIP_BYTES = 1 << 20  # before compression; readers hold one strip at a time
LONG, UNDEFINED, BYTE = 4, 7, 1
_FARTHEST = (1 << 32) - (1 << 20)
DAMAGED_DIRECTORY = (struct.error, LookupError, TypeError, ValueError, ArithmeticError, OSError, SyntaxError)
"""What Pillow raises at tags that do not hold what they say."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """pixels: H x W (x 3), uint8 or uint16; alpha: H x W of that type; photo: what is said about them."""

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None
    photo: Photo


def write_tiff(file: IO[bytes], pages: Iterable[Page]) -> None:
    """Write the pages, one after another as they come, in deflated strips, with what their photos say about them.

    A photo that was CMYK is written in its inks. file: empty, written from its beginning, can be read back. Raises
    ValueError for more than the 4 GB that TIFF's offsets reach.
    """
    link = 4
    for page in pages:
        ifd, strips = _directory(page)
        start = file.seek(0, io.SEEK_END)
        if start % 2:
            start += file.write(b"\0")
        if start + sum(map(len, strips)) > _FARTHEST:
            raise ValueError("a TIFF holds at most 4 GB")
        # Pillow writes the file's header before the first directory, and moves the strips' offsets behind each.
        ifd.save(file)
        for strip in strips:
            file.write(strip)
        if start:
            file.seek(link)
            file.write(struct.pack("<I", start))
        place = start or 8
        file.seek(place)
        (entries,) = struct.unpack("<H", file.read(2))
        link = place + 2 + 12 * entries


def _directory(page: Page) -> tuple[TiffImagePlugin.ImageFileDirectory_v2, list[bytes]]:
    pixels, alpha, photo = page.pixels, page.alpha, page.photo
    icc, colours = photo.icc, 1 if pixels.ndim == 2 else 3
    if photo.cmyk is not None and alpha is None and colours == 3:
        pixels, icc, colours = rgb_to_cmyk(pixels, photo.cmyk), photo.cmyk.icc, 4
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    if alpha is not None:
        channels = np.concatenate([channels, alpha[..., None]], axis=2)
    height, width, count = channels.shape
    rows = max(1, STRIP_BYTES // (width * count * channels.itemsize))
    strips = [_strip(channels[top : top + rows]) for top in range(0, height, rows)]

    ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    _describe(ifd, photo, icc)
    ifd[256], ifd[257], ifd[258], ifd[259] = width, height, (8 * channels.itemsize,) * count, 8
    ifd[262], ifd[277], ifd[278], ifd[317] = {1: 1, 3: 2, 4: 5}[colours], count, rows, 2
    ends = np.cumsum([len(strip) for strip in strips])
    for tag, values in ((273, [0, *ends[:-1].tolist()]), (279, [len(strip) for strip in strips])):
        ifd.tagtype[tag] = LONG
        ifd[tag] = tuple(values)
    if alpha is not None:
        ifd[338] = 2
    return ifd, strips


def _strip(rows: NDArray[Any]) -> bytes:
    """Rows as differences to the left neighbour (predictor 2), deflated."""
    little = rows.astype(rows.dtype.newbyteorder("<"))
    little[:, 1:] -= rows[:, :-1]
    return zlib.compress(little.tobytes(), 6)


def _describe(ifd: Any, photo: Photo, icc: bytes | None) -> None:
    if photo.exif:
        said = Image.Exif()
        said.load(photo.exif)
        for tag in DESCRIBING_TAGS:
            if tag in said:
                ifd[tag] = said[tag]
        for tag in (EXIF_IFD, GPS_IFD):
            entries = dict(said.get_ifd(tag))
            if entries:
                ifd.tagtype[tag] = LONG
                ifd[tag] = entries
    if photo.dpi:
        ifd[282], ifd[283], ifd[296] = (*photo.dpi, 2)
    known = {XMP_TAG: (BYTE, photo.xmp), ICC_TAG: (UNDEFINED, icc)}
    known[PHOTOSHOP_TAG] = (UNDEFINED, photo.options.get("photoshop"))
    known[IPTC_TAG] = (UNDEFINED, photo.options.get("iptc"))
    for tag, (kind, data) in known.items():
        if data:
            ifd.tagtype[tag] = kind
            ifd[tag] = data


def exif_of_tiff(image: Image.Image) -> bytes | None:
    """An EXIF block of what a TIFF says about the picture; its storage tags stay behind.

    Raises ValueError if the directories are damaged.
    """
    kept = Image.Exif()
    try:
        source = image.getexif()
        for tag in DESCRIBING_TAGS:
            if tag in source:
                kept[tag] = source[tag]
        for ifd in (EXIF_IFD, GPS_IFD):
            entries = source.get_ifd(ifd)
            if entries:
                kept.get_ifd(ifd).update(entries)
        return kept.tobytes() if len(kept) or any(kept.get_ifd(ifd) for ifd in (EXIF_IFD, GPS_IFD)) else None
    except DAMAGED_DIRECTORY as error:
        raise ValueError(str(error)) from error


def page_kind(image: Image.Image, number: int) -> str:
    """Of a page, from 0: ``picture``, ``reduced`` (a smaller copy of another) or ``mask`` (TIFF 6.0, NewSubfileType).

    Moves ``image`` to that page.
    """
    image.seek(number)
    said = image.tag_v2.get(254, 0)  # type: ignore[attr-defined]
    bits = said if isinstance(said, int) else 0
    return "reduced" if bits & 1 else "mask" if bits & 4 else "picture"
