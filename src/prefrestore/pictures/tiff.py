"""TIFF files (TIFF 6.0) of 8 and 16 bits: Pillow has no 16-bit colour and loses EXIF beside compression."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from prefrestore.pictures import metadata
from prefrestore.pictures.cmyk import rgb_to_cmyk

if TYPE_CHECKING:
    from prefrestore.pictures.photo import Photo

STRIP_BYTES = 1 << 20  # before compression; readers hold one strip at a time
LONG, UNDEFINED, BYTE = 4, 7, 1


def write_tiff(path: Path, pixels: NDArray[Any], alpha: NDArray[Any] | None, photo: Photo) -> None:
    """Write H x W (x 3) ``pixels`` (uint8 or uint16) in deflated strips, with what ``photo`` says about them.

    A photo that was CMYK is written in its inks. ``path`` is written to directly: see ``written_beside``.
    """
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
    header = io.BytesIO()
    # Pillow moves the strips' offsets behind the directory.
    ifd.save(header)
    with path.open("wb") as file:
        file.write(header.getvalue())
        for strip in strips:
            file.write(strip)


def _strip(rows: NDArray[Any]) -> bytes:
    """Rows as differences to the left neighbour (predictor 2), deflated."""
    little = rows.astype(rows.dtype.newbyteorder("<"))
    little[:, 1:] -= rows[:, :-1]
    return zlib.compress(little.tobytes(), 6)


def _describe(ifd: Any, photo: Photo, icc: bytes | None) -> None:
    if photo.exif:
        said = Image.Exif()
        said.load(photo.exif)
        for tag in metadata.DESCRIBING_TAGS:
            if tag in said:
                ifd[tag] = said[tag]
        for tag in (metadata.EXIF_IFD, metadata.GPS_IFD):
            entries = dict(said.get_ifd(tag))
            if entries:
                ifd.tagtype[tag] = LONG
                ifd[tag] = entries
    if photo.dpi:
        ifd[282], ifd[283], ifd[296] = (*photo.dpi, 2)
    for tag, kind, data in ((700, BYTE, photo.xmp), (34675, UNDEFINED, icc)):
        if data:
            ifd.tagtype[tag] = kind
            ifd[tag] = data
