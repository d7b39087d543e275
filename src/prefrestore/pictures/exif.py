"""EXIF and XMP as bytes: what must change with the pixels is changed in place, every other byte stays.

Offsets and tags: Exif 2.32, 4.6 (which is TIFF 6.0's structure); XMP specification, part 2.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_SIZES = {0x0100: 0, 0x0101: 1, 0xA002: 0, 0xA003: 1}
"""Tags of the picture's width and height -> index in its size."""
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4

_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))([1-8])')
_XMP_SIZES = (
    re.compile(rb"((?:exif:PixelXDimension|tiff:ImageWidth)(?:=[\"']|>))(\d+)"),
    re.compile(rb"((?:exif:PixelYDimension|tiff:ImageLength)(?:=[\"']|>))(\d+)"),
)
_XMP_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails\s*>", re.DOTALL)
# What points to further pictures or a film behind the first picture of the file (Ultra HDR, motion photos).
_XMP_BEHIND = (
    re.compile(rb"\s+(?:hdrgm|HDRGainMap|GCamera):[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')"),
    re.compile(rb"<((?:hdrgm|HDRGainMap|GCamera):[\w.-]+)\b[^>]*/>"),
    re.compile(rb"<((?:hdrgm|HDRGainMap|GCamera):[\w.-]+)\b[^>]*>.*?</\1\s*>", re.DOTALL),
    re.compile(rb"<(Container:Directory)\b[^>]*>.*?</\1\s*>", re.DOTALL),
)
_GAIN_MAP = re.compile(rb"hdrgm:|HDRGainMap:|Semantic=[\"']GainMap")
_FILM = re.compile(rb"GCamera:(?:MotionPhoto|MicroVideo)|Semantic=[\"']MotionPhoto")


@dataclass(frozen=True)
class _Entry:
    """place: of the entry in the block. Its value, if it fits into four bytes, stands at ``place + 8``."""

    place: int
    tag: int
    kind: int
    count: int


def normal(exif: bytes) -> bytes | None:
    """The block with the prefix that JPEG wants, whatever stands before its header; None if it has no header."""
    starts = [place for place in (exif.find(b"II*\0", 0, 32), exif.find(b"MM\0*", 0, 32)) if place >= 0]
    return PREFIX + exif[min(starts) :] if starts else None


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


def exif_for(exif: bytes, size: tuple[int, int]) -> bytes:
    """The EXIF block for changed pixels of ``size`` (width, height): no thumbnail, and this size where it says one.

    A damaged block comes back as far as it could be followed.
    """
    found = _header(exif)
    if found is None:
        return exif
    start, order = found
    block = bytearray(exif)
    first = _u32(block, start + 4, order)
    for entry in _entries(block, start, order, first):
        if entry.tag == EXIF_IFD:
            inner = _u32(block, entry.place + 8, order)
            for said in _entries(block, start, order, inner):
                _set_size(block, said, order, size)
        _set_size(block, entry, order, size)
    return bytes(_without_thumbnail(block, start, order, first))


def xmp_upright(xmp: bytes) -> bytes:
    """The XMP packet with its orientation, if it has one, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def xmp_for(xmp: bytes, size: tuple[int, int]) -> bytes:
    """The XMP packet for changed pixels of ``size`` (width, height): no thumbnails, and this size where it says one."""
    for pattern, value in zip(_XMP_SIZES, size, strict=True):
        xmp = pattern.sub(rb"\g<1>" + str(value).encode(), xmp)
    return _XMP_THUMBNAILS.sub(b"", xmp)


def xmp_of_one_picture(xmp: bytes) -> tuple[bytes, list[str]]:
    """The packet without what announces a gain map or a film behind the picture, and what these were."""
    lost = [
        name for name, said in (("HDR gain map", _GAIN_MAP), ("film of the motion photo", _FILM)) if said.search(xmp)
    ]
    if lost:
        for pattern in _XMP_BEHIND:
            xmp = pattern.sub(b"", xmp)
    return xmp, lost


def _header(exif: bytes | bytearray) -> tuple[int, str] | None:
    """Where the block begins and its byte order ("<" or ">")."""
    start = len(PREFIX) if exif.startswith(PREFIX) else 0
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[start : start + 2]))
    return None if order is None or len(exif) < start + 8 else (start, order)


def _u32(block: bytes | bytearray, place: int, order: str) -> int:
    return int(struct.unpack_from(order + "I", block, place)[0])


def _entries(block: bytes | bytearray, start: int, order: str, offset: int) -> Iterator[_Entry]:
    """The entries of the directory at ``offset`` that lie inside the block."""
    place = start + offset
    if place + 2 > len(block):
        return
    for index in range(struct.unpack_from(order + "H", block, place)[0]):
        entry = place + 2 + 12 * index
        if entry + 12 > len(block):
            return
        yield _Entry(entry, *struct.unpack_from(order + "HHI", block, entry))


def _orientation_place(exif: bytes) -> tuple[int, str] | None:
    """Offset of the orientation's value in the block and the byte order, or None."""
    found = _header(exif)
    if found is None:
        return None
    start, order = found
    for entry in _entries(exif, start, order, _u32(exif, start + 4, order)):
        if entry.tag == ORIENTATION and entry.kind == _SHORT:
            return entry.place + 8, order
    return None


def _set_size(block: bytearray, entry: _Entry, order: str, size: tuple[int, int]) -> None:
    if entry.tag not in _SIZES or entry.kind not in (_SHORT, _LONG) or entry.count != 1:
        return
    value = size[_SIZES[entry.tag]]
    if entry.kind == _SHORT and value <= 0xFFFF:
        struct.pack_into(order + "H", block, entry.place + 8, value)
    else:
        struct.pack_into(order + "H", block, entry.place + 2, _LONG)
        struct.pack_into(order + "I", block, entry.place + 8, value)


def _without_thumbnail(block: bytearray, start: int, order: str, first: int) -> bytearray:
    """The second directory describes the thumbnail: it is unlinked, and the thumbnail's bytes are taken out."""
    if start + first + 2 > len(block):
        return block
    count = struct.unpack_from(order + "H", block, start + first)[0]
    link = start + first + 2 + 12 * count
    if link + 4 > len(block):
        return block
    second = _u32(block, link, order)
    said = {entry.tag: _u32(block, entry.place + 8, order) for entry in _entries(block, start, order, second)}
    struct.pack_into(order + "I", block, link, 0)
    begin = start + said.get(_THUMBNAIL, 0)
    end = begin + said.get(_THUMBNAIL_LENGTH, 0)
    # Only what is a JPEG is wiped: a damaged offset may point anywhere.
    if second == 0 or bytes(block[begin : begin + 2]) != b"\xff\xd8" or end > len(block):
        return block
    if end == len(block):
        return block[:begin]
    block[begin:end] = bytes(end - begin)
    return block
