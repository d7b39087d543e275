"""What a picture file says beside its pixels: which way up it is, EXIF, XMP, IPTC. Works on bytes, keeps the
rest.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
# Tags of a TIFF's first directory that describe the picture and not how this one file stores it.
DESCRIBING_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))([1-8])')


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


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """1..8 from the EXIF block or, without one, from XMP; 1 (upright) if neither says it or the block is
    damaged.
    """
    if exif is not None:
        place = _orientation_place(exif)
        value = struct.unpack_from(place[1] + "H", exif, place[0])[0] if place else 1
        return value if 1 <= value <= 8 else 1
    said = _XMP_ORIENTATION.search(xmp) if xmp else None
    return int(said.group(2)) if said else 1


def exif_upright(exif: bytes) -> bytes:
    """The EXIF block with its orientation set to 1; every other byte, maker notes included, as it was."""
    place = _orientation_place(exif)
    if place is None:
        return exif
    changed = bytearray(exif)
    struct.pack_into(place[1] + "H", changed, place[0], 1)
    return bytes(changed)


def xmp_upright(xmp: bytes) -> bytes:
    """The XMP packet with its orientation, if it has one, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _orientation_place(exif: bytes) -> tuple[int, str] | None:
    """Offset of the orientation's value in the block and the byte order ("<" or ">"), or None."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None or len(exif) < start + 8:
        return None
    first = start + struct.unpack_from(order + "I", exif, start + 4)[0]
    if first + 2 > len(exif):
        return None
    for index in range(struct.unpack_from(order + "H", exif, first)[0]):
        entry = first + 2 + 12 * index
        if entry + 12 > len(exif):
            return None
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == ORIENTATION and kind == 3:
            return entry + 8, order
    return None


def exif_of_tiff(image: Image.Image) -> bytes | None:
    """An EXIF block of what a TIFF says about the picture; its storage tags stay behind.

    Raises ValueError if the directories are damaged.
    """
    source = image.getexif()
    kept = Image.Exif()
    try:
        for tag in DESCRIBING_TAGS:
            if tag in source:
                kept[tag] = source[tag]
        for ifd in (EXIF_IFD, GPS_IFD):
            entries = source.get_ifd(ifd)
            if entries:
                kept.get_ifd(ifd).update(entries)
        return kept.tobytes() if len(kept) or any(kept.get_ifd(ifd) for ifd in (EXIF_IFD, GPS_IFD)) else None
    except (struct.error, KeyError, TypeError, IndexError, OSError) as error:
        raise ValueError(str(error)) from error


def jpeg_iptc(image: Image.Image) -> bytes:
    """The JPEG's Photoshop/IPTC segments (APP13), whole with markers, to be written again as they are."""
    segments = getattr(image, "applist", [])
    found = [data for name, data in segments if name == "APP13"]
    return b"".join(b"\xff\xed" + struct.pack(">H", len(data) + 2) + data for data in found)


def add_png_chunks(
    png: bytes, *, icc: bytes | None, exif: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None
) -> bytes:
    """``png`` with metadata chunks behind its header (PNG specification, third edition, 11.3)."""
    chunks = b""
    if icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if dpi:
        per_metre = [round(value / 0.0254) for value in dpi]
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    header_end = 8 + 25
    return png[:header_end] + chunks + png[header_end:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
